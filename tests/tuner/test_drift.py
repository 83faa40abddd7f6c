"""Verdicts on a profile, from made-up measurements with hand-derived numbers."""

from dataclasses import replace
from typing import Any

import pytest

from storage.profile import Profile
from storage.records import CurvePoint, TrialRecord
from tests.tuner.measurements import record
from tuner.drift import (
    check_flat,
    check_memory,
    check_quality,
    check_throughput,
    check_utilisation,
)

NOISE = "steal of 30 % of the host"
THEN = {"matmul_flops_per_s": 4e10, "copy_bytes_per_s": 1e10}  # geometric mean 2e10
PROFILE = Profile(
    profile="balanced",
    num_envs=64,
    num_steps=64,
    num_minibatches=4,
    num_epochs=4,
    expected_sps=100_000.0,
    expected_sps_ci95=(96_000.0, 104_000.0),
    expected_device_util=80.0,
    util_source="psutil",
    expected_memory_gb=0.5,
    quality_score=0.8,
    measured={"env_steps": 262_144, "replicates": 4, "quality_sd": 0.1, "probe": THEN},
)


def runs(*rates: float, speed: float | None = 1.0, **changes: Any) -> list[TrialRecord]:
    """Return a record for each rate, on a machine whose probe reads `speed` × what it was."""
    probe = None if speed is None else {name: speed * value for name, value in THEN.items()}
    return [
        replace(record(0, replicate=number, probe=probe, **changes), sps=rate)
        for number, rate in enumerate(rates)
    ]


def test_the_same_speed_holds() -> None:
    check = check_throughput(PROFILE, runs(99_000, 101_000, 100_000, 100_000), 0.1)
    assert check.verdict == "holds"
    assert (check.expected, check.measured) == (100_000.0, 100_000.0)
    # s = 816, t(3) = 3.182, √4: ±1.30 %; the promise ±4/√2 = 2.83 %; together ±3.1 %.
    assert check.reason.startswith("100% of what was promised (97%–103%)")


def test_more_than_was_promised_holds() -> None:
    assert check_throughput(PROFILE, runs(150_000, 151_000, 149_000), 0.1).verdict == "holds"


def test_a_promise_raised_by_thirty_percent_has_drifted() -> None:
    raised = replace(PROFILE, expected_sps=130_000.0)
    check = check_throughput(raised, runs(99_000, 101_000, 100_000, 100_000), 0.1)
    assert check.verdict == "drifted"
    assert "77% of what was promised" in check.reason
    assert "77% relative to the probe" in check.reason


@pytest.mark.parametrize("contaminated", [None, NOISE])
def test_a_raised_promise_shows_on_a_noisy_machine_by_the_probe(contaminated: str | None) -> None:
    raised = replace(PROFILE, expected_sps=130_000.0)
    slow = runs(60_000, 61_000, 59_000, 60_000, speed=0.6, contaminated=contaminated)
    # 60/130 = 46 % of the promise, and relative to a machine at 60 %: 77 %.
    assert check_throughput(raised, slow, 0.1).verdict == "drifted"


def test_a_machine_that_is_slower_itself_leaves_it_open() -> None:
    check = check_throughput(PROFILE, runs(60_000, 61_000, 59_000, 60_000, speed=0.6), 0.1)
    assert check.verdict == "unclear"
    assert "the machine itself is slower than it was" in check.reason


def test_without_a_probe_noise_leaves_it_open_and_quiet_does_not() -> None:
    slow = {"speed": None}
    quiet = check_throughput(PROFILE, runs(60_000, 61_000, 59_000, **slow), 0.1)
    noisy = check_throughput(PROFILE, runs(60_000, 61_000, 59_000, contaminated=NOISE, **slow), 0.1)
    assert (quiet.verdict, noisy.verdict) == ("drifted", "unclear")


def test_a_spread_that_reaches_the_promise_leaves_it_open() -> None:
    # Mean 80,000 ± t(2)·20,000/√3 = ±49,700.
    check = check_throughput(PROFILE, runs(60_000, 80_000, 100_000), 0.1)
    assert check.verdict == "unclear"
    assert "the spread leaves it open" in check.reason


def test_a_spread_too_wide_to_tell_is_said_even_of_a_good_mean() -> None:
    check = check_throughput(PROFILE, runs(40_000, 100_000, 160_000), 0.1)
    assert check.verdict == "unclear"


def test_one_measurement_judges_nothing() -> None:
    assert check_throughput(PROFILE, runs(10_000), 0.1).verdict == "unmeasured"


def test_more_memory_than_promised_has_drifted_and_less_has_not() -> None:
    # 0.5 GB + 10 % + 0.032 GB = 0.582 GB
    at = {peak: check_memory(PROFILE, runs(1e5, peak_memory_gb=peak), 0.1) for peak in (0.58, 0.59)}
    assert [check.verdict for check in at.values()] == ["holds", "drifted"]
    assert check_memory(PROFILE, runs(1e5, peak_memory_gb=0.1), 0.1).verdict == "holds"
    assert check_memory(PROFILE, runs(1e5, peak_memory_gb=None), 0.1).verdict == "unmeasured"


def test_utilisation_may_fall_by_ten_points() -> None:
    def verdict(util: float, **changes: Any) -> str:
        return check_utilisation(PROFILE, runs(1e5, device_util=util, **changes), 0.1).verdict

    assert [verdict(util) for util in (95.0, 71.0, 69.0)] == ["holds", "holds", "drifted"]
    assert verdict(69.0, contaminated=NOISE) == "unclear"
    assert verdict(80.0, util_source="nvml") == "unmeasured"


def test_quality_is_judged_with_both_spreads() -> None:
    # Then ±0.1/√4, now s = 0.1 over three: 2·√(0.05² + 0.0577²) = 0.153 below 0.8.
    assert check_quality(PROFILE, [0.6, 0.7, 0.8], 0.1).verdict == "holds"
    assert check_quality(PROFILE, [0.5, 0.6, 0.7], 0.1).verdict == "drifted"
    # Without spread the tolerance alone: 0.72.
    certain = replace(PROFILE, measured={"replicates": 3})
    assert check_quality(certain, [0.73, 0.73], 0.1).verdict == "holds"
    assert check_quality(certain, [0.71, 0.71], 0.1).verdict == "drifted"
    assert check_quality(PROFILE, [], 0.1).verdict == "unmeasured"


def soak(*, held_bytes: list[int], threads: list[int]) -> list[CurvePoint]:
    return [
        CurvePoint(
            block=number, env_steps=number, seconds=1.0, metrics={}, threads=count, held_bytes=held
        )
        for number, (held, count) in enumerate(zip(held_bytes, threads, strict=True))
    ]


def test_a_flat_soak_holds_even_if_it_settles_first() -> None:
    settling = [200_000_000] * 4 + [300_000_000] * 28
    checks = check_flat(soak(held_bytes=settling, threads=[9] * 4 + [12] * 28))
    assert [check.verdict for check in checks] == ["holds", "holds"]


def test_memory_that_keeps_growing_has_drifted() -> None:
    # 2 MB a block: 16 MB are reached between the second quarter's middle and the last's, 32 apart.
    leaking = [300_000_000 + 2_000_000 * number for number in range(32)]
    memory, threads = check_flat(soak(held_bytes=leaking, threads=[12] * 32))
    assert (memory.verdict, threads.verdict) == ("drifted", "holds")
    assert memory.reason == "from 0.323 to 0.355 GB"


def test_threads_that_keep_coming_have_drifted() -> None:
    checks = check_flat(soak(held_bytes=[300_000_000] * 32, threads=list(range(12, 44))))
    assert [check.verdict for check in checks] == ["holds", "drifted"]


def test_a_soak_of_few_blocks_says_nothing() -> None:
    assert check_flat(soak(held_bytes=[1] * 7, threads=[1] * 7)) == []
