"""Rows to columns and back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from storage.records import CurvePoint, DeviceSample
from storage.series import finite, from_columns, to_columns

numbers = st.floats(allow_nan=False, allow_infinity=False)
unknown = st.none() | numbers
samples = st.builds(
    DeviceSample, t=numbers, util=unknown, memory_bytes=st.none() | st.integers(0, 10**12)
)
points = st.builds(
    CurvePoint,
    block=st.integers(0),
    env_steps=st.integers(0),
    seconds=numbers,
    metrics=st.dictionaries(st.text(max_size=5), unknown, max_size=3),
    learning=st.booleans(),
)


@given(st.lists(samples, max_size=5))
def test_samples_come_back(rows: list[DeviceSample]) -> None:
    assert from_columns(DeviceSample, json.loads(json.dumps(to_columns(rows)))) == rows


@given(st.lists(points, max_size=5))
def test_points_come_back(rows: list[CurvePoint]) -> None:
    assert from_columns(CurvePoint, json.loads(json.dumps(to_columns(rows)))) == rows


def test_columns_of_nothing_are_left_out() -> None:
    rows = [DeviceSample(t=0.0), DeviceSample(t=0.5, util=98.0)]
    assert to_columns(rows) == {"t": [0.0, 0.5], "util": [None, 98.0]}


def test_what_is_no_number_becomes_none() -> None:
    assert finite({"a": [float("nan"), 1.0], "b": float("-inf"), "c": "x", "d": 3}) == {
        "a": [None, 1.0],
        "b": None,
        "c": "x",
        "d": 3,
    }
