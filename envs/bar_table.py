"""A CSV file of bars as text: which columns count, and on which line every row begins.

Apart from `bars` because it knows of files and not of prices.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import InvalidMarketData

TIME, PRICES, VOLUME = "time", ("open", "high", "low", "close"), "volume"
COLUMNS = (*PRICES, VOLUME)


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that count, `TIME` and `COLUMNS`, of a file.

    `names` are their names in the file and `cells` the text of every row, both by our names; a row
    of another width than the header's has empty cells. `lines: [rows]` is each row's first line,
    from 1; `widths: [rows]` how many cells it has.
    """

    path: str
    names: dict[str, str]
    cells: dict[str, list[str]]
    lines: list[int]
    widths: NDArray[np.int64]
    header_width: int


def read_table(path: str) -> Table:
    """Read a file of comma-separated values with a header; the first column is the time.

    Raises:
        InvalidMarketData: The file is none that can be read, or a column is missing or twofold.
    """
    rows = _rows(path, io.StringIO(_text_of(path), newline=""))
    header_line, header = next(rows, (1, []))
    places = _places(header, f"{shown(path)}, line {header_line}")
    take, nothing = itemgetter(*places.values()), ("",) * len(places)
    lines, widths, taken = [], [], []
    for line, row in rows:
        lines.append(line)
        widths.append(len(row))
        taken.append(take(row) if len(row) == len(header) else nothing)
    columns = zip(*taken, strict=True) if taken else [()] * len(places)
    return Table(
        path=path,
        names={name: header[place].strip() for name, place in places.items()},
        cells={
            name: list(map(str.strip, column)) for name, column in zip(places, columns, strict=True)
        },
        lines=lines,
        widths=np.asarray(widths, np.int64),
        header_width=len(header),
    )


def shown(text: str) -> str:
    """Return `text` as it is, or quoted and escaped where it would spoil a one-line message."""
    if text and text.isprintable():
        return text
    return ascii(text if len(text) <= 60 else text[:60] + "…")


def _text_of(path: str) -> str:
    """Return the text of a file, without a byte-order mark."""
    content = _bytes_of(path)
    try:
        text = content.decode("utf-8-sig")
        good = content[: content.find(b"\0")] if "\0" in text else content
    except UnicodeDecodeError as error:
        good = content[: error.start]
    if len(good) == len(content):
        return text
    line = good.count(b"\n") + 1
    raise InvalidMarketData(
        f"data must be text in UTF-8, but got other bytes in {shown(path)}, line {line}; "
        "export it as CSV and do not compress it"
    )


def _bytes_of(path: str) -> bytes:
    try:
        if Path(path).is_file():
            return Path(path).read_bytes()
        got = "a folder" if Path(path).is_dir() else "no such file"
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or str(error)
    raise InvalidMarketData(
        f"data must be a file that can be read, but got {got} at {shown(path)}; check the path"
    )


def _rows(path: str, text: io.StringIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of every row; blank lines count but are no rows."""
    reader = csv.reader(text, strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InvalidMarketData(
                f"rows must be separated by commas and every quote must close, but got: {error} "
                f"in {shown(path)}, line {line}; correct the row"
            ) from None
        if row is None:
            return
        if len(row) > 1 or (row and row[0].strip()):
            yield line, row


def _places(header: list[str], where: str) -> dict[str, int]:
    """Return which column of the file is which, the first being the time."""
    lowered = [name.strip().lower() for name in header]
    text = ",".join(header)
    got = f"but got {text if len(text) <= 80 else text[:80] + '…'!r} in {where}"
    if not header:
        raise InvalidMarketData(f"data must have a header and bars, {got}; give a file that has")
    if lowered[0] in COLUMNS:
        raise InvalidMarketData(
            f"the first column must be the date and time, {got}; move it to the front"
        )
    for name in COLUMNS:
        if name not in lowered:
            raise InvalidMarketData(
                f"columns must be a date and time and {', '.join(COLUMNS)}, separated by commas, "
                f"{got}; add column {name}"
            )
        if lowered.count(name) > 1:
            raise InvalidMarketData(
                f"column {name} must occur once in any letter case, {got}; rename the others"
            )
    return {TIME: 0} | {name: lowered.index(name) for name in COLUMNS}
