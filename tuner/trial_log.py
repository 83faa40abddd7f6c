"""The log of a trial process: what it and its libraries print, held to a size.

The process writes to the file itself, so that nothing is lost when either side is killed and
nothing blocks; the parent cuts the file from time to time.
"""

import os
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 16 * 2**20
"""Size at which a log is cut."""
KEPT_BYTES = 4 * 2**20
"""What is kept of its beginning, and of its end, when it is cut."""


class TrialLog:
    """A log file that others append to."""

    def __init__(self, path: Path) -> None:
        """Name the file; `open` makes it."""
        self._path = path

    def open(self) -> BinaryIO:
        """Open the file, made with its folder if missing, for a process to append to."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self._path.open("ab")

    def rename(self, path: Path) -> None:
        """Give the file another name; what is written from now on goes there too."""
        os.replace(self._path, path)
        self._path = path

    def tail(self, size_bytes: int) -> str:
        """Return its end."""
        with self._path.open("rb") as log:
            return _end_of(log, size_bytes).decode(errors="replace")

    def cut(self) -> None:
        """Leave beginning and end of a log that has become too large, and say so in it.

        What is printed at this very moment may be lost. A file that cannot be cut stays as it is.
        """
        try:
            if self._path.stat().st_size <= MOST_BYTES:
                return
            with self._path.open("rb+") as log:
                size, end = log.seek(0, os.SEEK_END), _end_of(log, KEPT_BYTES)
                log.truncate(KEPT_BYTES)
        except OSError:
            return
        left_out = size - 2 * KEPT_BYTES
        note = f"\n[{left_out} bytes are left out here: a log is cut at {MOST_BYTES} bytes]\n"
        with self.open() as log:
            log.write(note.encode() + end)


def _end_of(log: BinaryIO, size_bytes: int) -> bytes:
    log.seek(max(0, log.seek(0, os.SEEK_END) - size_bytes))
    return log.read(size_bytes)
