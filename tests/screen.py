"""What a terminal shows after some output: enough of one for what rich writes."""

import re
from collections.abc import Iterable
from itertools import groupby

_PIECES = re.compile(r"\x1b\[(\d*(?:;\d+)*)([A-Za-z])|\x1b\[\?(\d+)([hl])|[\r\n]|[^\x1b\r\n]+")
_Cell = tuple[str, str]
"""A character, and the sequences that give it its colours."""


class Screen:
    """Rows without an upper end, `width` columns."""

    def __init__(self, width: int) -> None:
        self.is_cursor_shown = True
        self._width = width
        self._rows: list[list[_Cell]] = [[]]
        self._row = self._column = 0
        self._style = ""

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
        return "\n".join(_plain(row).rstrip() for row in self._rows).rstrip("\n")

    @property
    def coloured(self) -> list[str]:
        """The rows in their colours, each ending without any."""
        return [
            "".join(f"{style}{_plain(cells)}\x1b[0m" for style, cells in groupby(row, _style_of))
            for row in self._rows
        ]

    @property
    def is_at_line_start(self) -> bool:
        """Whether a shell's prompt would come on a line of its own."""
        return self._column == 0 and not _plain(self._rows[self._row]).strip()

    def _show(self, piece: re.Match[str]) -> None:
        argument, command, mode, is_on = piece.groups()
        if command == "A":
            self._row = max(0, self._row - int(argument or 1))
        elif command == "K":
            assert argument == "2"
            self._rows[self._row] = []
        elif command == "m":
            self._style = "" if argument in ("", "0") else self._style + piece[0]
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
                row = self._rows[self._row]
                row += [(" ", "")] * (self._column - len(row))
                row[self._column : self._column + 1] = [(character, self._style)]
                self._column += 1

    def _new_row(self) -> None:
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._rows):
            self._rows.append([])


def _style_of(cell: _Cell) -> str:
    return cell[1]


def _plain(cells: Iterable[_Cell]) -> str:
    return "".join(character for character, _ in cells)
