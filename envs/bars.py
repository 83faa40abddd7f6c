"""Bars of a market: a CSV file of the user's, checked row by row, or synthetic ones.

Every cell is read as text and converted here, because a reader that guesses repairs silently and
loses the line numbers that messages need. A bar's time is its *opening* time.
"""

import contextlib
import difflib
import re
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from envs.bar_table import COLUMNS, TIME, VOLUME, Table, read_table, shown
from envs.contracts import contract_of
from envs.errors import InvalidMarketData
from envs.synthetic import synthetic_bars

MIN_BARS = 100
"""Fewest bars that can be used: indicators warm up, then come a window and a short episode."""

MAX_SYNTHETIC_BARS = 20_000
"""More only take longer to draw: these are fifty sessions."""

MIN_PRICE, MAX_PRICE, MAX_VOLUME = 1e-9, 1e9, 1e18
"""Beyond these float32 arithmetic on prices and profits is no longer safe."""

MAX_DROPPED = 0.05
"""Share of rows that may be dropped: where more are bad, it is the file that is, or one time far in
the future beside which every later row looks old."""

REMEDY = "correct the row or pass --drop-bad-rows"

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NUMBER_CHARACTERS = frozenset("0123456789.+-eE")
_TIME = re.compile(
    r"(?:19|20|21)\d\d-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?"
    r"(Z|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)
_NO_TIME = np.iinfo(np.int64).min
_NS_PER_DAY = 86_400 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketSource:
    """Where bars come from and how they are read.

    `data` is a CSV file, None for synthetic bars; `finer_data` one of shorter bars of the same
    market, for the extremes within a bar. `tz` is the time zone of times without an offset, UTC if
    None. `bars` is how many are used, the last ones. `point_value` is USD per point and contract.
    """

    data: str | None = None
    finer_data: str | None = None
    market: str = "NQ"
    tz: str | None = None
    bars: int = 50_000
    drop_bad_rows: bool = False
    point_value: float | None = None


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars that passed every check.

    `frame` has float64 columns open, high, low, close, volume, low_s and high_s (the lowest and
    highest price of finer bars, else the bar's own) by the opening time in UTC, increasing.
    `dropped` counts the bad rows left out of both files, `num_rows` all rows that they held; both
    are 0 without a file.
    """

    frame: pd.DataFrame
    dropped: int = 0
    num_rows: int = 0


def load_bars(source: MarketSource, *, seed: int = 0) -> Bars:
    """Read the bars of a market and check every row.

    Args:
        source: The files and how to read them; without `data`, the default synthetic bars, at
            most `MAX_SYNTHETIC_BARS` and with their planted pattern.
        seed: Of the synthetic bars.

    Returns:
        The last `source.bars` bars.

    Raises:
        InvalidMarketData: In one line, with file, line and column where there are such.
    """
    contract = contract_of(source.market, source.point_value)
    zone = _zone(source.tz)
    if source.bars < MIN_BARS:
        raise InvalidMarketData(
            f"--bars must be at least {MIN_BARS}, but got {source.bars}; leave it out"
        )
    if source.data is None:
        if source.finer_data is not None:
            raise InvalidMarketData(
                "finer bars must come with --data, but got only finer bars; pass both files"
            )
        num_bars = min(source.bars, MAX_SYNTHETIC_BARS)
        return Bars(synthetic_bars(num_bars, seed, contract.tick_size))
    bars = _read_bars(source.data, zone, source.drop_bad_rows)
    if len(bars.frame) < MIN_BARS:
        raise InvalidMarketData(
            f"{shown(source.data)} must hold at least {MIN_BARS} good bars, but got "
            f"{len(bars.frame)} in {bars.num_rows} rows; give more data"
        )
    frame = bars.frame.iloc[-source.bars :].copy()
    frame["low_s"], frame["high_s"] = frame["low"], frame["high"]
    if source.finer_data is None:
        return Bars(frame, bars.dropped, bars.num_rows)
    finer = _read_bars(source.finer_data, zone, source.drop_bad_rows)
    _take_extremes(frame, finer.frame, shown(source.finer_data))
    return Bars(frame, bars.dropped + finer.dropped, bars.num_rows + finer.num_rows)


def _zone(tz: str | None) -> zoneinfo.ZoneInfo | None:
    if tz is None:
        return None
    try:
        return zoneinfo.ZoneInfo(tz)
    except (KeyError, ValueError, OSError):
        names = sorted(zoneinfo.available_timezones())
        by_lower = {name.rpartition("/")[2].lower(): name for name in names}
        by_lower |= {name.lower(): name for name in names}
        nearest = difflib.get_close_matches(tz.lower().replace(" ", "_"), by_lower, n=1)
        remedy = f"did you mean {by_lower[nearest[0]]}?" if nearest else "leave it out for UTC"
        raise InvalidMarketData(
            f"--tz must be a time zone such as America/New_York, but got {tz!r}; {remedy}"
        ) from None


@dataclass(frozen=True, slots=True)
class _Fault:
    """What may be wrong with a row: in which rows it is, what is required and what was got."""

    rows: NDArray[np.bool_]
    column: str
    required: str
    got: Callable[[int], str]


def _read_bars(path: str, zone: zoneinfo.ZoneInfo | None, drop_bad_rows: bool) -> Bars:
    """Read a file whose every row is good, or keep those that are."""
    table = read_table(path)
    times, time_faults = _times(table, zone)
    values = {name: _numbers(table.cells[name]) for name in COLUMNS}
    faults = [_width_fault(table), *time_faults, *_number_faults(table, values)]
    bad = np.logical_or.reduce([fault.rows for fault in faults])
    faults.append(_order_fault(table, times, bad))
    bad = bad | faults[-1].rows
    if bad.any() and not drop_bad_rows:
        raise InvalidMarketData(f"{_message(table, faults, int(np.argmax(bad)))}; {REMEDY}")
    if bad.sum() > MAX_DROPPED * len(bad):
        raise InvalidMarketData(
            f"at most {MAX_DROPPED:.0%} of the rows may be dropped, but got {bad.sum():,} bad ones "
            f"of {len(bad):,}, the first: {_message(table, faults, int(np.argmax(bad)))}; correct "
            "the file"
        )
    index = pd.DatetimeIndex(times[~bad].view("M8[ns]"), name=TIME).tz_localize("UTC")
    frame = pd.DataFrame({name: values[name][~bad] for name in COLUMNS}, index=index)
    return Bars(frame, int(bad.sum()), len(table.lines))


def _message(table: Table, faults: list[_Fault], row: int) -> str:
    fault = next(fault for fault in faults if fault.rows[row])
    return (
        f"{fault.required}, but got {fault.got(row)} in {shown(table.path)}, "
        f"line {table.lines[row]}, column {shown(table.names[fault.column])}"
    )


def _quoted(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else cell[:40] + "…") if cell else "nothing"


def _numbers(cells: list[str]) -> NDArray[np.float64]:
    """Return the cells as numbers, NaN for what is none."""
    # Of these characters alone `float` accepts what the pattern accepts, several times faster.
    if set("".join(cells)) <= _NUMBER_CHARACTERS:
        with contextlib.suppress(ValueError):
            return np.fromiter(map(float, cells), np.float64, count=len(cells))
    numbers = (float(cell) if _NUMBER.fullmatch(cell) else np.nan for cell in cells)
    return np.fromiter(numbers, np.float64, count=len(cells))


def _width_fault(table: Table) -> _Fault:
    required = f"a row must have {table.header_width} cells, as the header has"
    wrong = table.widths != table.header_width
    return _Fault(wrong, TIME, required, lambda row: str(table.widths[row]))


def _number_faults(table: Table, values: dict[str, NDArray[np.float64]]) -> list[_Fault]:
    """Check every row for itself: numbers, their range, and the order of the four prices."""

    def cell(name: str) -> Callable[[int], str]:
        return lambda row: _quoted(table.cells[name][row])

    def prices(name: str, other: str) -> Callable[[int], str]:
        return lambda row: f"{table.cells[name][row]} beside {other} {table.cells[other][row]}"

    faults: list[_Fault] = []
    for name in COLUMNS:
        number = values[name]
        least, most = (0.0, MAX_VOLUME) if name == VOLUME else (MIN_PRICE, MAX_PRICE)
        positive = "at least 0" if name == VOLUME else "above 0"
        negative = number < 0 if name == VOLUME else number <= 0
        faults += [
            _Fault(np.isnan(number), name, f"{name} must be a number", cell(name)),
            _Fault(negative, name, f"{name} must be {positive}", cell(name)),
            _Fault(
                (number < least) | (number > most),
                name,
                f"{name} must lie between {least:g} and {most:g}",
                cell(name),
            ),
        ]
    high, low = values["high"], values["low"]
    faults.append(_Fault(high < low, "high", "high must be at least low", prices("high", "low")))
    for name in ("open", "close"):
        above, below = values[name] > high, values[name] < low
        faults += [
            _Fault(above, name, f"{name} must be at most high", prices(name, "high")),
            _Fault(below, name, f"{name} must be at least low", prices(name, "low")),
        ]
    return faults


def _order_fault(table: Table, times: NDArray[np.int64], bad: NDArray[np.bool_]) -> _Fault:
    """Require that every row is later than all good rows before it."""
    latest = np.maximum.accumulate(np.where(bad, _NO_TIME, times))
    before = np.concatenate([[_NO_TIME], latest[:-1]])

    def got(row: int) -> str:
        previous = int(np.argmax(np.where(bad, _NO_TIME, times)[:row]))
        return f"{_quoted(table.cells[TIME][row])} after line {table.lines[previous]}, " + _quoted(
            table.cells[TIME][previous]
        )

    required = "times must increase and none may repeat"
    return _Fault(~bad & (times <= before), TIME, required, got)


def _times(table: Table, zone: zoneinfo.ZoneInfo | None) -> tuple[NDArray[np.int64], list[_Fault]]:
    """Return nanoseconds since 1970 in UTC for every row, and what is wrong with them."""
    cells = table.cells[TIME]
    matches = [_TIME.fullmatch(cell) for cell in cells]
    readable = [cell if match else None for cell, match in zip(cells, matches, strict=True)]
    parsed = pd.to_datetime(
        pd.Series(readable, dtype=object), format="ISO8601", utc=True, errors="coerce"
    )
    unreadable = parsed.isna().to_numpy()
    times = pd.DatetimeIndex(parsed).as_unit("ns").asi8.copy()

    def got(row: int) -> str:
        return _quoted(cells[row])

    written = (
        "time must be written as 2024-03-08 09:30:00, with or without an offset such as -05:00"
    )
    faults = [_Fault(unreadable, TIME, written, got)]
    if zone is None:
        return times, faults
    has_offset = np.array([match is not None and match[1] is not None for match in matches])
    local = ~unreadable & ~has_offset.astype(bool)
    times[local], missing, undecided = _instants(times[local], zone)
    absent, twofold = np.zeros_like(local), np.zeros_like(local)
    absent[local], twofold[local] = missing, undecided
    advice = "give times in UTC or with offsets"
    return times, [
        *faults,
        _Fault(absent, TIME, f"time must exist in {zone}, where clocks go forward ({advice})", got),
        _Fault(twofold, TIME, f"time must be one of {zone}, where clocks go back ({advice})", got),
    ]


def _instants(
    walls: NDArray[np.int64], zone: zoneinfo.ZoneInfo
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the instants of times that a clock on the wall of `zone` shows, in file order.

    An hour that occurs twice is told by its rows: where they fall back once, the first of the two
    ends there. Also returns which times do not exist and which of the two is not told; all [rows].
    """
    index = pd.DatetimeIndex(walls.view("M8[ns]"))
    first, second = (
        index.tz_localize(
            zone, ambiguous=np.full(len(walls), is_first), nonexistent="NaT"
        ).asi8.copy()
        for is_first in (True, False)
    )
    missing = first == _NO_TIME
    twofold = np.flatnonzero(first != second)
    undecided = np.zeros(len(walls), np.bool_)
    days = walls // _NS_PER_DAY
    breaks = np.flatnonzero((np.diff(twofold) > 1) | (np.diff(days[twofold]) != 0)) + 1
    for hour in np.split(twofold, breaks):
        falls = np.flatnonzero(np.diff(walls[hour]) <= 0)
        undecided[hour] = not len(falls)
        if len(falls):
            first[hour[falls[0] + 1 :]] = second[hour[falls[0] + 1 :]]
    return first, missing, undecided


def _take_extremes(frame: pd.DataFrame, finer: pd.DataFrame, path: str) -> None:
    """Replace low_s and high_s of `frame` by those of the finer bars that lie within each bar.

    A bar's own open and close count with them, since they were traded whatever the finer file
    says, and its own extremes, too, where the finer file lacks a part of it.
    """
    times, finer_times = frame.index.asi8, finer.index.asi8
    step = np.median(np.diff(times))
    if len(finer) < 2 or np.median(np.diff(finer_times)) >= step:
        raise InvalidMarketData(
            f"finer bars must be shorter than the bars of {step / 6e10:g} minutes, but got none "
            f"such in {path}; give a file of shorter bars"
        )
    bar = np.searchsorted(times, finer_times, side="right") - 1
    inside = (bar >= 0) & (finer_times < times[bar] + step)
    if not inside.any():
        raise InvalidMarketData(
            f"finer bars must lie within the bars from {frame.index[0]} to {frame.index[-1]}, "
            f"but got {finer.index[0]} to {finer.index[-1]} in {path}; give the same days"
        )
    found = (
        finer[inside]
        .groupby(bar[inside])
        .agg(low=("low", "min"), high=("high", "max"), bars=("low", "size"))
    )
    own = frame.iloc[found.index]
    lowest, highest = found["low"].to_numpy(), found["high"].to_numpy()
    stray = np.flatnonzero((lowest > own["high"].to_numpy()) | (highest < own["low"].to_numpy()))
    if len(stray):
        row = stray[0]
        raise InvalidMarketData(
            f"finer bars must trade where their bar does, {own['low'].iloc[row]:g} to "
            f"{own['high'].iloc[row]:g} at {own.index[row]}, but got {lowest[row]:g} to "
            f"{highest[row]:g} in {path}; check its market and its time zone"
        )
    # Where a finer bar is missing, what it would have reached is known of the bar alone.
    is_whole = found["bars"].to_numpy() * np.median(np.diff(finer_times)) >= step
    known = [own[["open", "close"]], own[["low", "high"]]]
    least, most = (
        np.where(is_whole, *(getattr(part, end)(axis=1) for part in known))
        for end in ("min", "max")
    )
    low_s, high_s = frame["low"].to_numpy().copy(), frame["high"].to_numpy().copy()
    low_s[found.index] = np.minimum(lowest, least)
    high_s[found.index] = np.maximum(highest, most)
    frame["low_s"], frame["high_s"] = low_s, high_s
