"""`trials.csv`: one row for each measurement, for spreadsheets and pandas.

A copy for people: the database is what counts, and `rewrite` makes the file anew from it. Booleans
are `true` and `false`, intervals and phases JSON, unknown values empty, and every record one line.
"""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from storage.atomic import atomic_write_text, sync_folder
from storage.errors import InvalidTable, StorageUnavailable
from storage.records import RECORD_FIELDS, TrialRecord
from storage.series import finite

_EARLY = ("compile_cached", "window_s", "quality_reason")
_LAST_PUBLISHED = "contaminated"
_PUBLISHED = RECORD_FIELDS[: RECORD_FIELDS.index(_LAST_PUBLISHED) + 1]
COLUMNS = (
    *(name for name in _PUBLISHED if name not in _EARLY),
    *_EARLY,
    *RECORD_FIELDS[len(_PUBLISHED) :],
)
"""The published columns in their published order, then those that were added since."""


def append(path: Path, record: TrialRecord) -> None:
    """Add one row, with the header if the file is new or empty.

    The row is written by one call and is on the disk when this returns. A torn last line, left by a
    kill or a full disk, is cut off first. Processes that append at once wait for each other.

    Raises:
        InvalidTable: If the file has other columns.
        StorageUnavailable: If it cannot be written; what stood in it still does.
    """
    is_new = not path.exists()
    try:
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = _cut_torn_line(file)
            if end:
                _require_columns(path, file)
            row = _line(_cells(record))
            text = row if end else _line(COLUMNS) + row
            _write_whole(file, text.encode(), end)
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def rewrite(path: Path, records: Iterable[TrialRecord]) -> None:
    """Replace the whole file by the rows of `records`, in their order, in one step.

    Raises:
        StorageUnavailable: If it cannot be written; the file is then as it was.
    """
    rows = [_line(COLUMNS), *(_line(_cells(record)) for record in records)]
    try:
        atomic_write_text(path, "".join(rows))
    except OSError as error:
        raise _unwritable(path, error) from error


def _cut_torn_line(file: io.FileIO) -> int:
    """Cut off what follows the last line end and return the size that is left, in bytes."""
    file.seek(0)
    content = file.readall()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        file.truncate(end)
    return end


def _require_columns(path: Path, file: io.FileIO) -> None:
    file.seek(0)
    header = file.readline().decode(errors="replace").rstrip("\n")
    if header != ",".join(COLUMNS):
        raise InvalidTable(
            f"{path} must have the columns of this version, but got others ({header[:60]}…); "
            "move it away and resume the study, which writes it anew"
        )


def _write_whole(file: io.FileIO, content: bytes, end: int) -> None:
    """Write at the end or not at all: a full disk may take a part, which is cut off again."""
    written = file.write(content)
    if written != len(content):
        file.truncate(end)
        raise OSError(f"only {written} of {len(content)} bytes were written; is the disk full?")


def _line(cells: Iterable[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _cells(record: TrialRecord) -> list[str]:
    return [_cell(finite(getattr(record, name))) for name in COLUMNS]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return " ".join(value.splitlines())
    return json.dumps(value)


def _unwritable(path: Path, error: OSError) -> StorageUnavailable:
    return StorageUnavailable(
        f"{path} must be writable, but got: {error.strerror or error}; "
        "free space or change its mode"
    )
