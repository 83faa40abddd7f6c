"""What bounds a trial, by numbers made for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import RECORD_FIELDS
from tuner.peaks import Peaks
from tuner.roofline import Roofline, Time, Work, bound, busy_but_idle

PEAKS = Peaks(matmul_flops_per_s=1e12, copy_bytes_per_s=1e11, launch_s=1e-5)
WORK = Work(flops=1e9, bytes=1e8, kernels=100)
"""At these peaks each takes a millisecond."""


def judged(
    work: Work | None = WORK,
    peaks: Peaks | None = PEAKS,
    *,
    update_s: float = 2e-3,
    host_s: float = 0.01,
    dtype: str = "float32",
) -> Roofline:
    """Judge 100 updates of `update_s` and `host_s` seconds between their blocks."""
    time = Time(updates=100, blocks_s=100 * update_s, window_s=100 * update_s + host_s)
    return bound(work, peaks, time=time, dtype=dtype)


def test_rates_and_fractions() -> None:
    # 1e9 operations, 1e8 bytes and 100 kernels in 4 ms: 2.5e11 and 2.5e10 a second, a quarter of
    # each peak, and 1 of 4 ms is launching; 0.1 of 0.5 s lie between blocks.
    found = judged(update_s=4e-3, host_s=0.1)
    assert found.flops_per_s == pytest.approx(2.5e11)
    assert found.bytes_per_s == pytest.approx(2.5e10)
    assert found.compute_fraction == pytest.approx(0.25)
    assert found.memory_fraction == pytest.approx(0.25)
    assert found.launch_fraction == pytest.approx(0.25)
    assert found.host_fraction == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("name", "change"),
    [("compute", {"flops": 1.8e9}), ("memory", {"bytes": 1.8e8}), ("launch", {"kernels": 180})],
)
def test_the_largest_fraction_names_the_bound(name: str, change: dict[str, float]) -> None:
    # 1.8 of 2 ms, where the others take 1.
    found = judged(replace(WORK, **change))
    assert found.bound == name
    assert found.as_dict()[f"{name}_fraction"] == pytest.approx(0.9)


def test_time_between_blocks_is_the_hosts() -> None:
    # 0.6 of 0.8 s.
    found = judged(host_s=0.6)
    assert found.bound == "host"
    assert found.host_fraction == pytest.approx(0.75)


def test_where_no_fraction_is_large_the_bound_is_unexplained() -> None:
    # 1 of 10 ms for each of the three, 0.01 of 1.01 s for the host.
    assert judged(update_s=1e-2).bound == "unexplained"


def test_a_fraction_above_one_is_shown_as_measured() -> None:
    # Caches served 4e8 bytes in 2 ms where memory gives 2e8.
    found = judged(replace(WORK, bytes=4e8))
    assert found.memory_fraction == pytest.approx(2.0)
    assert found.bound == "memory"


def test_bfloat16_is_held_against_its_own_peak() -> None:
    peaks = replace(PEAKS, bfloat16_flops_per_s=4e12)
    assert judged(peaks=peaks).compute_fraction == pytest.approx(0.5)
    assert judged(peaks=peaks, dtype="bfloat16").compute_fraction == pytest.approx(0.125)


def test_without_peaks_there_are_rates_and_no_fractions_of_them() -> None:
    found = judged(peaks=None)
    assert found.flops_per_s == pytest.approx(5e11)
    assert found.bytes_per_s == pytest.approx(5e10)
    fractions = (found.compute_fraction, found.memory_fraction, found.launch_fraction)
    assert fractions == (None, None, None)
    assert found.host_fraction is not None
    assert found.bound is None


def test_what_is_missing_might_be_the_bound_unless_another_takes_half_the_time() -> None:
    without = replace(PEAKS, copy_bytes_per_s=None)
    assert judged(peaks=without, update_s=2.5e-3).bound is None  # 0.4 of compute and of launch
    assert judged(replace(WORK, flops=1.8e9), without).bound == "compute"
    assert judged(None, None, host_s=0.6).bound == "host"
    assert judged(None, None).bound is None


@pytest.mark.parametrize(
    "time",
    [
        None,
        Time(updates=0, blocks_s=0, window_s=0),
        Time(updates=1, blocks_s=0, window_s=1),
        Time(updates=1, blocks_s=1, window_s=0),
    ],
)
def test_without_a_window_nothing_is_known(time: Time | None) -> None:
    assert bound(WORK, PEAKS, time=time, dtype="float32") == Roofline()


def test_rounding_of_clocks_makes_no_negative_share() -> None:
    assert judged(host_s=-1e-9).host_fraction == 0.0


@given(st.floats(1e-6, 1e3), st.floats(0, 1e3))
def test_the_bound_is_always_a_name_where_all_is_known(update_s: float, host_s: float) -> None:
    found = judged(update_s=update_s, host_s=host_s)
    assert found.bound in ("compute", "memory", "launch", "host", "unexplained")
    assert found.host_fraction is not None
    assert 0 <= found.host_fraction <= 1


def test_the_fields_are_those_of_the_record() -> None:
    assert set(Roofline().as_dict()) <= set(RECORD_FIELDS)


IDLE = Roofline(compute_fraction=0.01, memory_fraction=0.05)


def test_busy_for_nvml_and_idle_by_activity_is_warned_of() -> None:
    said = busy_but_idle(99.0, sm_util=12.0, roofline=Roofline())
    assert said is not None
    assert "99 % busy" in said
    assert "active for 12 %" in said


def test_busy_for_nvml_and_idle_by_fractions_is_warned_of() -> None:
    said = busy_but_idle(99.0, sm_util=None, roofline=IDLE)
    assert said is not None
    assert "1.0%" in said
    assert "5.0%" in said


@pytest.mark.parametrize(
    ("gpu_util", "sm_util", "roofline"),
    [
        (None, 5.0, IDLE),  # no GPU was read
        (90.0, 5.0, IDLE),  # NVML does not say busy
        (99.0, 80.0, IDLE),  # activity is believed before fractions
        (99.0, None, Roofline()),  # nothing says idle
        (99.0, None, replace(IDLE, memory_fraction=0.6)),
        (99.0, None, replace(IDLE, memory_fraction=None)),
    ],
)
def test_without_a_contradiction_nothing_is_said(
    gpu_util: float | None, sm_util: float | None, roofline: Roofline
) -> None:
    assert busy_but_idle(gpu_util, sm_util=sm_util, roofline=roofline) is None
