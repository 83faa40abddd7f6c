"""What a terminal shows after some output: enough of one for what rich writes."""

import re

_PIECES = re.compile(r"\x1b\[(\d*(?:;\d+)*)([A-Za-z])|\x1b\[\?(\d+)([hl])|[\r\n]|[^\x1b\r\n]+")


class Screen:
    """Rows without an upper end, `width` columns; colours are forgotten."""

    def __init__(self, width: int) -> None:
        self.rows = [""]
        self.is_cursor_shown = True
        self._width = width
        self._row = self._column = 0

    def feed(self, output: str) -> "Screen":
        """Show more output; raise ValueError for what this terminal does not know."""
        end = 0
        for piece in _PIECES.finditer(output):
            if piece.start() != end:
                break
            end = piece.end()
            self._show(piece)
        if end != len(output):
            raise ValueError(f"unknown output {output[end : end + 20]!r}")
        return self

    @property
    def text(self) -> str:
        """The rows, without blanks at their ends."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip("\n")

    @property
    def is_at_line_start(self) -> bool:
        """Whether a shell's prompt would come on a line of its own."""
        return self._column == 0 and not self.rows[self._row].strip()

    def _show(self, piece: re.Match[str]) -> None:
        argument, command, mode, is_on = piece.groups()
        if command == "A":
            self._row = max(0, self._row - int(argument or 1))
        elif command == "K":
            assert argument == "2"
            self.rows[self._row] = ""
        elif mode == "25":
            self.is_cursor_shown = is_on == "h"
        elif command is None and piece[0] == "\r":
            self._column = 0
        elif command is None and piece[0] == "\n":
            self._new_row()
        elif command is None:
            for character in piece[0]:
                if self._column == self._width:
                    self._new_row()
                row = self.rows[self._row].ljust(self._column)
                self.rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
                self._column += 1

    def _new_row(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self.rows):
            self.rows.append("")
