"""Whatever a file holds, it is refused in one line or all that is accepted is sound."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from envs.bars import MAX_PRICE, MAX_VOLUME, MIN_BARS, MIN_PRICE, Bars, MarketSource, load_bars
from envs.errors import InvalidMarketData
from envs.market import market_data

SHORT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LONG = settings(SHORT, max_examples=1_500)

NUM_ROWS = 110
TIMES = [str(time) for time in pd.date_range("2024-11-01 09:30", periods=NUM_ROWS, freq="h")]
ROWS = [[time, "100", "101.5", "99.25", "100.75", "12"] for time in TIMES]
HEADER = ["time", "open", "high", "low", "close", "volume"]

ODD_CELLS = st.one_of(
    st.sampled_from([
        "", " ", "nan", "NaN", "inf", "-inf", "null", "None", "0", "-0", "-1", "1e400", "1e-400",
        "1e38", "1_000", "1,000", "0x10", "١٢", "½", "1e5", "100", "101.5", "99", "+100", "100.",
        "99.2500000000000000000000001", "now", "today", "NaT", "2024", "2024-11", "20241104",
        "2024-11-03 01:30:00", "2024-11-03T05:30:00Z", "2024-11-03 06:30:00+00:00", "2024-W45-1",
        "2024-11-04 24:00:00", "2024-11-04 23:59:60", "2024-13-01", "9999-12-31", "1677-01-01",
        "2024-11-04 09:30:00+23:59", "2024-11-04 09:30:00-14:60", "1e18", "1730000000", "#", '"',
        "'", "\n", "\r", "\t", "\0", "\u2028", "﻿", "=1+1", "True",
    ]),
    st.text(max_size=12),
    st.floats().map(str),
    st.datetimes().map(str),
    st.integers(0, NUM_ROWS - 1).map(lambda row: TIMES[row]),
)  # fmt: skip
PLACES = st.tuples(st.integers(0, NUM_ROWS - 1), st.integers(0, 5))
OPTIONS = st.fixed_dictionaries({
    "drop_bad_rows": st.booleans(),
    "tz": st.sampled_from([None, "America/New_York", "Europe/Dublin", "Australia/Lord_Howe"]),
})  # fmt: skip


def check(content: bytes, finer: bytes | None = None, **options) -> Bars | None:  # type: ignore[no-untyped-def]
    """Load a file: return what was accepted after checking it, None if it was refused."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path, finer_path = Path(folder, "bars.csv"), Path(folder, "finer.csv")
        path.write_bytes(content)
        if finer is not None:
            finer_path.write_bytes(finer)
        finer_data = None if finer is None else str(finer_path)
        try:
            bars = load_bars(MarketSource(data=str(path), finer_data=finer_data, **options))
        except InvalidMarketData as refused:
            message = str(refused)
            assert len(message.splitlines()) == 1
            assert message.isprintable()
            assert len(message) < 600
            assert "bars.csv" in message or "finer" in message
            return None
    assert_sound(bars)
    return bars


def assert_sound(bars: Bars) -> None:
    """Assert by plain comparisons what the loader promises of every bar."""
    frame = bars.frame
    assert list(frame.columns) == ["open", "high", "low", "close", "volume", "low_s", "high_s"]
    assert set(map(str, frame.dtypes)) == {"float64"}
    assert len(frame) >= MIN_BARS
    assert str(frame.index.tz) == "UTC"
    times = frame.index.as_unit("ns").asi8
    assert (np.diff(times) > 0).all()
    assert frame.index[0].year >= 1899
    assert frame.index[-1].year <= 2200
    for row in frame.itertuples():
        for price in (row.open, row.high, row.low, row.close, row.low_s, row.high_s):
            assert MIN_PRICE <= price <= MAX_PRICE
        assert row.low <= min(row.open, row.close)
        assert max(row.open, row.close) <= row.high
        assert row.low_s <= min(row.open, row.close)
        assert max(row.open, row.close) <= row.high_s
        assert 0 <= row.volume <= MAX_VOLUME
    assert np.isfinite(frame.to_numpy().astype(np.float32)).all()
    assert (frame[["open", "high", "low", "close"]].to_numpy().astype(np.float32) > 0).all()
    try:
        data = market_data(bars, episode_length=5, window=3)
    except InvalidMarketData:
        return
    assert np.isfinite(np.asarray(data.inputs)).all()
    assert (np.asarray(data.atr) > 0).all()


def text_of(header: list[str], rows: list[list[str]], *, quoted: bool = False) -> bytes:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quoted else text

    lines = [",".join(map(cell, row)) for row in [header, *rows]]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def cells_replaced(changes: dict[tuple[int, int], str], quoted: bool, options) -> None:  # type: ignore[no-untyped-def]
    rows = [list(row) for row in ROWS]
    for (row, column), text in changes.items():
        rows[row][column] = text
    bars = check(text_of(HEADER, rows, quoted=quoted), **options)
    if bars is not None and quoted:
        assert bars.num_rows == NUM_ROWS
        assert len(bars.frame) + bars.dropped == NUM_ROWS
        untouched = NUM_ROWS - len({row for row, _ in changes})
        # A changed time may make rows after it come too late.
        if not any(column == 0 for _, column in changes):
            assert len(bars.frame) >= untouched - 2 * (options["tz"] is not None)


def rows_moved(order: list[int], options) -> None:  # type: ignore[no-untyped-def]
    bars = check(text_of(HEADER, [ROWS[row] for row in order]), **options)
    if bars is not None and not options["drop_bad_rows"]:
        assert order == sorted(set(order))


def bytes_spliced(at: int, length: int, noise: bytes, options) -> None:  # type: ignore[no-untyped-def]
    good = text_of(HEADER, ROWS)
    at = min(at, len(good))
    check(good[:at] + noise + good[at + length :], **options)


def header_changed(header: list[str]) -> None:
    assume(header != HEADER)
    lowered = [name.strip().lower() for name in header]
    bars = check(text_of(header, ROWS, quoted=True))
    if bars is not None:
        assert all(lowered.count(name) == 1 for name in HEADER[1:])


CELLS = st.dictionaries(PLACES, ODD_CELLS, max_size=8)
ORDERS = st.one_of(
    st.permutations(range(NUM_ROWS)),
    st.lists(st.integers(0, NUM_ROWS - 1), min_size=90, max_size=150),
    st.sets(st.integers(0, NUM_ROWS - 1), min_size=100).map(sorted),
)
SPLICES = (
    st.integers(0, 6_000),
    st.integers(0, 300),
    st.one_of(st.binary(max_size=80), st.text(max_size=40).map(lambda text: text.encode()),
              st.sampled_from([b'"', b"\r", b"\n\n", b",", b"\0", b"\xff\xfe", b"\xef\xbb\xbf"])),
)  # fmt: skip
HEADERS = st.permutations(HEADER).flatmap(
    lambda names: st.tuples(
        *(st.sampled_from([name, name.upper(), f" {name} ", "", "Close"]) for name in names)
    ).map(list)
)


@SHORT
@given(CELLS, st.booleans(), OPTIONS)
def test_odd_cells(changes, quoted, options) -> None:  # type: ignore[no-untyped-def]
    cells_replaced(changes, quoted, options)


@SHORT
@given(ORDERS, OPTIONS)
def test_rows_in_any_order(order, options) -> None:  # type: ignore[no-untyped-def]
    rows_moved(order, options)


@SHORT
@given(*SPLICES, OPTIONS)
def test_bytes_anywhere(at, length, noise, options) -> None:  # type: ignore[no-untyped-def]
    bytes_spliced(at, length, noise, options)


@SHORT
@given(HEADERS)
def test_any_header(header) -> None:  # type: ignore[no-untyped-def]
    header_changed(header)


@SHORT
@given(st.binary(max_size=400))
def test_bytes_alone(content: bytes) -> None:
    check(content)
    check(text_of(HEADER, ROWS), finer=content)


@pytest.mark.long
@LONG
@given(CELLS, st.booleans(), OPTIONS, ORDERS, *SPLICES, HEADERS)
def test_all_of_it_for_a_minute(  # type: ignore[no-untyped-def]
    changes, quoted, options, order, at, length, noise, header
) -> None:
    cells_replaced(changes, quoted, options)
    rows_moved(order, options)
    bytes_spliced(at, length, noise, options)
    if header != HEADER:
        header_changed(header)


def test_the_unchanged_file_is_accepted() -> None:
    bars = check(text_of(HEADER, ROWS))
    assert bars is not None
    assert len(bars.frame) == NUM_ROWS
