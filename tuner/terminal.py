"""Output whose reader may leave: `tuner status | head -1`, a terminal that is closed.

A command then goes on to its end and its exit code, and what nobody reads is dropped.
"""

import errno
import io
import sys
from typing import TextIO

_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}
"""Characters that could move the cursor or worse: a message may quote a file from anyone."""

_GONE = (errno.EPIPE, errno.EIO)


def printable(text: str) -> str:
    """Return a text that may quote a file from anyone, with its control characters spelled out."""
    return text.translate(_CONTROLS)


class _Forgiving(io.FileIO):
    """A descriptor that takes everything once its reader has gone."""

    def write(self, data: object, /) -> int:
        """Write bytes, or drop them when nobody can read them any more."""
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError as error:
            if error.errno in _GONE:
                return size
            raise


def outlive_readers() -> None:
    """Let this process's stdout and stderr lose their readers without a fault."""
    sys.stdout, sys.stderr = _forgiving(sys.stdout), _forgiving(sys.stderr)


def _forgiving(stream: TextIO) -> TextIO:
    if stream is None:  # it was closed before the program began
        return stream
    stream.flush()
    raw = _Forgiving(stream.fileno(), "w", closefd=False)
    is_prompt = stream is sys.stderr or stream.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=is_prompt,
    )
