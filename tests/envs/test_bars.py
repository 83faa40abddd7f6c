import csv
import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from envs.bars import MIN_BARS, Bars, MarketSource, load_bars
from envs.contracts import MARKETS, Contract, contract_of
from envs.errors import EnvError, InvalidMarketData

NASDAQ = Path(__file__).parent.parent / "data" / "nasdaq-daily.csv"
HEADER = "time,open,high,low,close,volume"
OHLCV = "100,101,99,100.5,10"
ON_LINE_7 = "2024-03-04 14:35:00"

Lines = list[str]


def good_lines(num_bars: int = 120) -> Lines:
    """Return a file of minute bars from 2024-03-04 14:30 UTC; line 7 is that of 14:35."""
    times = pd.date_range("2024-03-04 14:30", periods=num_bars, freq="min")
    return [HEADER, *(f"{time},{OHLCV}" for time in times)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Bars]:
    """Write lines or bytes to `bars.csv` and load it; `finer` goes to `finer.csv`."""

    def written(name: str, content: Lines | bytes) -> str:
        text = "\n".join(content).encode() if isinstance(content, list) else content
        (tmp_path / name).write_bytes(text)
        return str(tmp_path / name)

    def load(content: Lines | bytes, *, finer: Lines | None = None, **options) -> Bars:  # type: ignore[no-untyped-def]
        finer_data = None if finer is None else written("finer.csv", finer)
        source = MarketSource(data=written("bars.csv", content), finer_data=finer_data, **options)
        return load_bars(source)

    return load


@pytest.fixture
def refusal(read: Callable[..., Bars], tmp_path: Path) -> Callable[..., str]:
    """Load what must be refused; return the message with the folder left out."""

    def refuse(content: Lines | bytes, **options) -> str:  # type: ignore[no-untyped-def]
        with pytest.raises(InvalidMarketData) as refused:
            read(content, **options)
        return str(refused.value).replace(f"{tmp_path}/", "")

    return refuse


def with_line_7(line: str) -> Lines:
    lines = good_lines()
    lines[6] = line
    return lines


# --- what is read ---------------------------------------------------------------------------------


def test_the_real_daily_bars_load_as_they_are() -> None:
    bars = load_bars(MarketSource(data=str(NASDAQ)))
    assert (bars.dropped, bars.num_rows, len(bars.frame)) == (0, 5031, 5031)
    with NASDAQ.open() as file:
        rows = list(csv.reader(file))[1:]
    assert bars.frame["close"].tolist() == [float(row[4]) for row in rows]
    first, last = bars.frame.iloc[0], bars.frame.iloc[-1]
    # Lines 2 and 5032 of the file.
    assert str(bars.frame.index[0]) == "1999-01-04 00:00:00+00:00"
    assert first[["open", "high", "low", "close", "volume"]].tolist() == [
        2207.540039, 2233.570068, 2192.679932, 2208.050049, 936660000,
    ]  # fmt: skip
    assert str(bars.frame.index[-1]) == "2018-12-31 00:00:00+00:00"
    assert (last["close"], last["low_s"], last["high_s"]) == (6635.279785, 6570.060059, 6659.959961)


def test_columns_may_have_any_case_and_order_and_company(read: Callable[..., Bars]) -> None:
    lines = [line.split(",") for line in good_lines()]
    shuffled = [
        ",".join([row[0], row[5], "note", row[4], row[2], row[3], row[1]]) for row in lines[1:]
    ]
    bars = read(["When, VOLUME,note,Close,HIGH,low,Open", *shuffled])
    assert bars.frame.equals(read(good_lines()).frame)


def test_the_last_bars_are_used(read: Callable[..., Bars]) -> None:
    frame = read(good_lines(150), bars=110).frame
    assert len(frame) == 110
    assert str(frame.index[0]) == "2024-03-04 15:10:00+00:00"


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2024-03-04T14:30", "14:30"),
        ("2024-03-04 14:30:00.000", "14:30"),
        ("2024-03-04T14:30:00Z", "14:30"),
        ("2024-03-04 14:30:00+00", "14:30"),
        ("2024-03-04 09:30:00-05:00", "14:30"),
        ("2024-03-04 09:30:00-0500", "14:30"),
        ("2024-03-04 14:30:59.999999999", "14:30:59.999999999"),
    ],
)
def test_times_may_be_written_in_every_iso_form(
    read: Callable[..., Bars], written: str, utc: str
) -> None:
    lines = good_lines()
    lines[1] = f"{written},{OHLCV}"
    assert read(lines).frame.index[0] == pd.Timestamp(f"2024-03-04 {utc}", tz="UTC")


def test_a_blank_line_or_a_quoted_line_break_moves_no_line_number(
    refusal: Callable[..., str],
) -> None:
    lines = good_lines()
    lines = [f"{line},note" for line in lines]
    lines[3] += "\nsecond half"  # unquoted: a row of one cell on line 5
    assert "line 5, column time" in refusal(lines)
    lines[3] = lines[3].replace("note\nsecond half", '"first\nsecond half"')
    lines.insert(5, "")
    lines[10] = lines[10].replace("100.5", "x")
    # Ten entries before it, one of which is two lines: line 12.
    assert "line 12, column close" in refusal(lines)


def test_carriage_returns_and_a_byte_order_mark_are_no_fault(read: Callable[..., Bars]) -> None:
    text = "﻿" + "\r\n".join(good_lines()) + "\r\n"
    assert read(text.encode()).frame.equals(read(good_lines()).frame)


def test_fifty_thousand_rows_take_a_second_at_most(read: Callable[..., Bars]) -> None:
    import time

    lines = good_lines(50_000)
    began = time.process_time()
    read(lines)
    assert time.process_time() - began < 2


# --- daylight saving ------------------------------------------------------------------------------


def test_offsets_that_change_with_daylight_saving_are_converted(read: Callable[..., Bars]) -> None:
    # 09:30 and 09:31 in New York on the Friday before and the Monday after both changes.
    days = [("2024-03-08", "-05:00"), ("2024-03-11", "-04:00"),
            ("2024-11-01", "-04:00"), ("2024-11-04", "-05:00")]  # fmt: skip
    lines = [f"{day} 09:{30 + m}:00{offset},{OHLCV}" for day, offset in days for m in range(30)]
    index = read([HEADER, *lines]).frame.index
    assert [str(time) for time in index[::30]] == [
        "2024-03-08 14:30:00+00:00",
        "2024-03-11 13:30:00+00:00",
        "2024-11-01 13:30:00+00:00",
        "2024-11-04 14:30:00+00:00",
    ]
    naive = [HEADER, *(line[:19] + line[25:] for line in lines)]
    assert read(naive, tz="America/New_York").frame.index.equals(index)


def test_the_hour_that_occurs_twice_is_told_by_the_order_of_its_rows(
    read: Callable[..., Bars],
) -> None:
    utc = pd.date_range("2024-11-03 04:00", "2024-11-03 08:00", freq="min", tz="UTC")
    walls = utc.tz_convert("America/New_York").tz_localize(None)
    assert walls.has_duplicates
    lines = [HEADER, *(f"{wall},{OHLCV}" for wall in walls)]
    assert read(lines, tz="America/New_York").frame.index.equals(utc.rename("time").as_unit("ns"))


def test_a_single_hour_that_occurs_twice_is_refused(refusal: Callable[..., str]) -> None:
    walls = pd.date_range("2024-11-03 00:00", "2024-11-03 03:00", freq="min")
    lines = [HEADER, *(f"{wall},{OHLCV}" for wall in walls)]
    assert refusal(lines, tz="America/New_York") == (
        "time must be one of America/New_York, where clocks go back (give times in UTC or with "
        "offsets), but got '2024-11-03 01:00:00' in bars.csv, line 62, column time; correct the "
        "row or pass --drop-bad-rows"
    )


def test_an_hour_that_does_not_exist_is_refused(refusal: Callable[..., str]) -> None:
    walls = pd.date_range("2024-03-10 01:00", "2024-03-10 04:00", freq="min")
    lines = [HEADER, *(f"{wall},{OHLCV}" for wall in walls)]
    assert refusal(lines, tz="America/New_York") == (
        "time must exist in America/New_York, where clocks go forward (give times in UTC or with "
        "offsets), but got '2024-03-10 02:00:00' in bars.csv, line 62, column time; correct the "
        "row or pass --drop-bad-rows"
    )


# --- bad rows -------------------------------------------------------------------------------------

WRITTEN = "time must be written as 2024-03-08 09:30:00, with or without an offset such as -05:00"
BAD_ROWS = {
    "no time": (f",{OHLCV}", f"{WRITTEN}, but got nothing in {{}}time"),
    "no date": (f"yesterday,{OHLCV}", f"{WRITTEN}, but got 'yesterday' in {{}}time"),
    "two orders": (f"3/4/2024,{OHLCV}", f"{WRITTEN}, but got '3/4/2024' in {{}}time"),
    "year": (f"1824-03-04 14:35:00,{OHLCV}",
             f"{WRITTEN}, but got '1824-03-04 14:35:00' in {{}}time"),
    "no such day": (f"2024-02-30 14:35:00,{OHLCV}",
                    f"{WRITTEN}, but got '2024-02-30 14:35:00' in {{}}time"),
    "now": (f"now,{OHLCV}", f"{WRITTEN}, but got 'now' in {{}}time"),
    "comment": ("# a comment", "a row must have 6 cells, as the header has, but got 1 in {}time"),
    "same time": (f"2024-03-04 14:34:00,{OHLCV}",
                  "times must increase and none may repeat, but got '2024-03-04 14:34:00' after "
                  "line 6, '2024-03-04 14:34:00' in {}time"),
    "earlier": (f"2024-03-04 14:31:30,{OHLCV}",
                "times must increase and none may repeat, but got '2024-03-04 14:31:30' after "
                "line 6, '2024-03-04 14:34:00' in {}time"),
    "cells": (f"{ON_LINE_7},100,101,99,100.5",
              "a row must have 6 cells, as the header has, but got 5 in {}time"),
    "thousands": (f"{ON_LINE_7},1,100,1,101,1,099,1,100.5,10",
                  "a row must have 6 cells, as the header has, but got 10 in {}time"),
    "nothing": (f"{ON_LINE_7},,101,99,100.5,10",
                "open must be a number, but got nothing in {}open"),
    "nan": (f"{ON_LINE_7},100,NaN,99,100.5,10", "high must be a number, but got 'NaN' in {}high"),
    "infinite": (f"{ON_LINE_7},100,inf,99,100.5,10",
                 "high must be a number, but got 'inf' in {}high"),
    "word": (f"{ON_LINE_7},100,101,low,100.5,10", "low must be a number, but got 'low' in {}low"),
    "underscore": (f"{ON_LINE_7},1_00,101,99,100.5,10",
                   "open must be a number, but got '1_00' in {}open"),
    "currency": (f'{ON_LINE_7},100,"1,101",99,100.5,10',
                 "high must be a number, but got '1,101' in {}high"),
    "digits": (f"{ON_LINE_7},١٠٠,101,99,100.5,10",
               "open must be a number, but got '١٠٠' in {}open"),
    "zero": (f"{ON_LINE_7},100,101,0,100.5,10", "low must be above 0, but got '0' in {}low"),
    "negative": (f"{ON_LINE_7},100,101,99,-37.63,10",
                 "close must be above 0, but got '-37.63' in {}close"),
    "overflow": (f"{ON_LINE_7},100,1e400,99,100.5,10",
                 "high must lie between 1e-09 and 1e+09, but got '1e400' in {}high"),
    "tiny": (f"{ON_LINE_7},100,101,1e-30,100.5,10",
             "low must lie between 1e-09 and 1e+09, but got '1e-30' in {}low"),
    "volume": (f"{ON_LINE_7},100,101,99,100.5,-1",
               "volume must be at least 0, but got '-1' in {}volume"),
    "no volume": (f"{ON_LINE_7},100,101,99,100.5,",
                  "volume must be a number, but got nothing in {}volume"),
    "volumes": (f"{ON_LINE_7},100,101,99,100.5,1e30",
                "volume must lie between 0 and 1e+18, but got '1e30' in {}volume"),
    "high < low": (f"{ON_LINE_7},100,98,99,100,10",
                   "high must be at least low, but got 98 beside low 99 in {}high"),
    "open above": (f"{ON_LINE_7},102,101,99,100.5,10",
                   "open must be at most high, but got 102 beside high 101 in {}open"),
    "open below": (f"{ON_LINE_7},98,101,99,100.5,10",
                   "open must be at least low, but got 98 beside low 99 in {}open"),
    "close above": (f"{ON_LINE_7},100,101,99,101.5,10",
                    "close must be at most high, but got 101.5 beside high 101 in {}close"),
    "close below": (f"{ON_LINE_7},100,101,99,98.5,10",
                    "close must be at least low, but got 98.5 beside low 99 in {}close"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_named_by_file_line_and_column(refusal: Callable[..., str], kind: str) -> None:
    line, message = BAD_ROWS[kind]
    said = message.format("bars.csv, line 7, column ")
    assert refusal(with_line_7(line)) == f"{said}; correct the row or pass --drop-bad-rows"


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_is_dropped_and_counted_on_request(read: Callable[..., Bars], kind: str) -> None:
    bars = read(with_line_7(BAD_ROWS[kind][0]), drop_bad_rows=True)
    assert (bars.dropped, bars.num_rows, len(bars.frame)) == (1, 120, 119)
    lines = good_lines()
    assert bars.frame.equals(read(lines[:6] + lines[7:]).frame)


def test_the_first_bad_row_of_several_is_named(refusal: Callable[..., str]) -> None:
    lines = with_line_7(f"{ON_LINE_7},100,98,99,100,10")
    lines[3] = f"2024-03-04 14:30:00,{OHLCV}"
    lines[9] = f"never,{OHLCV}"
    assert "line 4, column time" in refusal(lines)


def test_a_long_or_strange_cell_keeps_the_message_on_one_short_line(
    refusal: Callable[..., str],
) -> None:
    lines = with_line_7(f'"{ON_LINE_7}\n\t\u2028' + "9" * 1000 + f'",{OHLCV}')
    message = refusal(lines)
    assert len(message.splitlines()) == 1
    assert len(message) < 300


# --- bad files ------------------------------------------------------------------------------------

COLUMNS = "columns must be a date and time and open, high, low, close, volume, separated by commas"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data must have a header and bars, but got '' in bars.csv, line 1; give a file that "
              "has"),
        (b"\n\n", "data must have a header and bars, but got '' in bars.csv, line 1; give a file "
                  "that has"),
        (HEADER.encode(), "bars.csv must hold at least 100 good bars, but got 0 in 0 rows; give "
                          "more data"),
        ("\n".join(good_lines(99)).encode(),
         "bars.csv must hold at least 100 good bars, but got 99 in 99 rows; give more data"),
        (b"time,open,high,low,close\n",
         f"{COLUMNS}, but got 'time,open,high,low,close' in bars.csv, line 1; add column volume"),
        (b"\ntime;open;high;low;close;volume\n",
         f"{COLUMNS}, but got 'time;open;high;low;close;volume' in bars.csv, line 2; "
         "add column open"),
        (b"open,high,low,close,volume,time\n",
         "the first column must be the date and time, but got 'open,high,low,close,volume,time' in "
         "bars.csv, line 1; move it to the front"),
        (b"time,open,high,low,close,volume,Close\n",
         "column close must occur once in any letter case, but got "
         "'time,open,high,low,close,volume,Close' in bars.csv, line 1; rename the others"),
        (HEADER.encode() + b"\n\xff\xfe",
         "data must be text in UTF-8, but got other bytes in bars.csv, line 2; export it as CSV "
         "and do not compress it"),
        (HEADER.encode("utf-16-le"),
         "data must be text in UTF-8, but got other bytes in bars.csv, line 1; export it as CSV "
         "and do not compress it"),
        (gzip.compress(HEADER.encode(), mtime=0),
         "data must be text in UTF-8, but got other bytes in bars.csv, line 1; export it as CSV "
         "and do not compress it"),
        (HEADER.encode() + b'\n"2024-03-04,1,1,1,1,1\n',
         "rows must be separated by commas and every quote must close, but got: unexpected end of "
         "data in bars.csv, line 2; correct the row"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_of_bars_is_refused(
    refusal: Callable[..., str], content: bytes, message: str
) -> None:
    assert refusal(content) == message
    assert refusal(content, drop_bad_rows=True) == message


def test_a_file_with_its_newest_bar_first_is_refused_even_when_rows_may_be_dropped(
    refusal: Callable[..., str],
) -> None:
    lines = good_lines()
    lines = [lines[0], *lines[:0:-1]]
    assert "line 3, column time" in refusal(lines)
    message = refusal(lines, drop_bad_rows=True)
    assert message.startswith(
        "at most 5% of the rows may be dropped, but got 119 bad ones of 120, the first: times must"
    )
    assert message.endswith("in bars.csv, line 3, column time; correct the file")


def test_one_time_in_the_future_does_not_drop_all_that_follow(
    refusal: Callable[..., str],
) -> None:
    lines = good_lines()
    lines[10] = "2099-01-01" + lines[10][10:]
    assert "110 bad ones of 120, the first:" not in refusal(lines)
    message = refusal(lines, drop_bad_rows=True)
    assert "but got 110 bad ones of 120, the first: times must increase" in message
    assert "after line 11, '2099-01-01" in message


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("missing.csv", "no such file"),
        (".", "a folder"),
        ("a\0b", "no such file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path, name: str, got: str) -> None:
    with pytest.raises(InvalidMarketData, match="data must be a file that can be read") as refused:
        load_bars(MarketSource(data=f"{tmp_path}/{name}"))
    assert got in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bars": 99}, f"--bars must be at least {MIN_BARS}, but got 99; leave it out"),
        ({"bars": -1}, f"--bars must be at least {MIN_BARS}, but got -1; leave it out"),
        ({"tz": "New York"},
         "--tz must be a time zone such as America/New_York, but got 'New York'; did you mean "
         "America/New_York?"),
        ({"tz": "../etc"},
         "--tz must be a time zone such as America/New_York, but got '../etc'; leave it out for "
         "UTC"),
        ({"tz": ""},
         "--tz must be a time zone such as America/New_York, but got ''; leave it out for UTC"),
        ({"market": "NGQ"},
         "--market must be one of ES, NQ, MES, MNQ, YM, RTY, but got 'NGQ', did you mean NQ?; "
         "another market needs --point-value"),
        ({"point_value": 0.0},
         "--point-value must be a positive number of USD a point, but got 0.0; leave it out for a "
         "known market"),
        ({"point_value": float("nan")},
         "--point-value must be a positive number of USD a point, but got nan; leave it out for a "
         "known market"),
    ],
)  # fmt: skip
def test_a_bad_option_is_refused(
    refusal: Callable[..., str], options: dict[str, object], message: str
) -> None:
    assert refusal(good_lines(), **options) == message


# --- finer bars -----------------------------------------------------------------------------------


def five_minute_lines() -> Lines:
    times = pd.date_range("2024-03-04 14:30", periods=120, freq="5min")
    return [HEADER, *(f"{time},100,105,95,100.5,10" for time in times)]


def test_extremes_are_those_of_the_finer_bars_within_each_bar(read: Callable[..., Bars]) -> None:
    finer = [
        HEADER,
        "2024-03-04 14:29:00,100,104.9,95.1,100,1",  # before the first bar
        "2024-03-04 14:30:00,100,101,99.5,100,1",
        "2024-03-04 14:31:00,100,101,99.5,100,1",
        "2024-03-04 14:32:00,100,102,99,100,1",
        "2024-03-04 14:33:00,100,101,99.5,100,1",
        "2024-03-04 14:34:00,100,101,99.5,100,1",
        *(f"2024-03-04 14:3{m}:00,101,103,100.75,101,1" for m in range(5, 10)),  # its open is 100
        *(f"2024-03-04 14:4{m}:00,100,101,99.5,100,1" for m in (0, 1, 2, 4)),  # 14:43 is missing
    ]
    frame = read(five_minute_lines(), finer=finer).frame
    # The last two keep their own: of the third a minute is not known, of the fourth nothing.
    assert frame["low_s"].tolist()[:4] == [99, 100, 95, 95]
    assert frame["high_s"].tolist()[:4] == [102, 103, 105, 105]
    # What is traded at a bar's ends lies between its extremes, whatever the finer file lacks.
    ends = frame[["open", "close"]]
    assert (frame["low_s"] <= ends.min(axis=1)).all()
    assert (frame["high_s"] >= ends.max(axis=1)).all()


def test_finer_bars_of_a_gap_belong_to_no_bar(read: Callable[..., Bars]) -> None:
    lines = five_minute_lines()
    del lines[2]  # the bar of 14:35
    first = [f"2024-03-04 14:3{m}:00,100,102,99,100,1" for m in range(5)]
    gap = [f"2024-03-04 14:3{m}:00,100,104,96,100,1" for m in range(5, 10)]
    frame = read(lines, finer=[HEADER, *first, *gap]).frame
    assert (frame["low_s"].iloc[0], frame["high_s"].iloc[0]) == (99, 102)


@pytest.mark.parametrize(
    ("finer", "message"),
    [
        (five_minute_lines(),
         "finer bars must be shorter than the bars of 5 minutes, but got none such in finer.csv; "
         "give a file of shorter bars"),
        ([HEADER],
         "finer bars must be shorter than the bars of 5 minutes, but got none such in finer.csv; "
         "give a file of shorter bars"),
        ([HEADER, f"2023-03-04 14:30:00,{OHLCV}", f"2023-03-04 14:31:00,{OHLCV}"],
         "finer bars must lie within the bars from 2024-03-04 14:30:00+00:00 to 2024-03-05 "
         "00:25:00+00:00, but got 2023-03-04 14:30:00+00:00 to 2023-03-04 14:31:00+00:00 in "
         "finer.csv; give the same days"),
        ([HEADER, "2024-03-04 14:31:00,9,9,9,9,1", "2024-03-04 14:32:00,9,9.5,8,9,1"],
         "finer bars must trade where their bar does, 95 to 105 at 2024-03-04 14:30:00+00:00, but "
         "got 8 to 9.5 in finer.csv; check its market and its time zone"),
        ([HEADER, f"2024-03-04 14:31:00,{OHLCV}", "2024-03-04 14:32:00,9,9.5,8,9,"],
         "volume must be a number, but got nothing in finer.csv, line 3, column volume; correct "
         "the row or pass --drop-bad-rows"),
    ],
)  # fmt: skip
def test_finer_bars_that_do_not_fit_are_refused(
    refusal: Callable[..., str], finer: Lines, message: str
) -> None:
    assert refusal(five_minute_lines(), finer=finer) == message


def test_finer_bars_alone_are_refused() -> None:
    with pytest.raises(InvalidMarketData, match=r"^finer bars must come with --data, but got only"):
        load_bars(MarketSource(finer_data="finer.csv"))


def test_dropped_rows_of_both_files_are_counted(read: Callable[..., Bars]) -> None:
    lines = five_minute_lines()
    lines[4] = "x" + lines[4]
    finer = good_lines()
    finer[5] = finer[5].replace("101", "1")
    bars = read(lines, finer=finer, drop_bad_rows=True)
    assert (bars.dropped, bars.num_rows) == (2, 240)


# --- contracts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "point_value", "tick_size"),
    [("ES", 50, 0.25), ("nq", 20, 0.25), ("Mes", 5, 0.25), ("MNQ", 2, 0.25), ("ym", 5, 1),
     ("RTY", 50, 0.1)],
)  # fmt: skip
def test_the_table_of_contracts(market: str, point_value: float, tick_size: float) -> None:
    contract = contract_of(market)
    assert (contract.point_value, contract.tick_size) == (point_value, tick_size)
    assert 0 < contract.commission < 3
    assert contract_of(market, 7).point_value == 7
    assert contract_of(market, 7).commission == MARKETS[market.upper()].commission


def test_an_unknown_market_is_a_matter_of_its_point_value() -> None:
    assert contract_of("AAPL", 1) == Contract(point_value=1, tick_size=0.01, commission=0)


def test_the_error_is_one_of_the_packages_and_a_value_error() -> None:
    assert issubclass(InvalidMarketData, EnvError)
    assert issubclass(InvalidMarketData, ValueError)


def test_loading_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_bars(MarketSource(data=str(NASDAQ), tz="America/New_York"))
    assert caught == []
    assert np.isfinite(load_bars(MarketSource()).frame.to_numpy()).all()
