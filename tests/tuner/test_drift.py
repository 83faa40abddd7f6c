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
REACH = {"matmul_flops_per_s": 4e10, "copy_bytes_per_s": 1e10}  # geometric mean 2e10
THEN = {**REACH, "sps_per_reach": 100_000 / 2e10, "sps": 100_000.0}
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
    probe = None if speed is None else {name: speed * value for name, value in REACH.items()}
    return [
        replace(record(0, replicate=number, probe=probe, **changes), sps=rate)
        for number, rate in enumerate(rates)
    ]


def test_the_same_speed_holds() -> None:
    check = check_throughput(PROFILE, runs(99_000, 101_000, 100_000, 100_000), 0.1)
    assert check.verdict == "holds"
    assert (check.expected, check.measured) == (100_000.0, 100_000.0)
    # s = 816, t(3) = 3.182, √4: ±1.30 %; the promise, of 4 replicates, ±4/√5 = 1.79 %: ±2.2 %.
    assert check.reason.startswith("100% (98%–102%) of what was promised")


def test_more_than_was_promised_holds() -> None:
    assert check_throughput(PROFILE, runs(150_000, 151_000, 149_000), 0.1).verdict == "holds"


def test_a_promise_far_below_the_spread_holds() -> None:
    # 100 times what was promised, give or take half of that.
    modest = replace(PROFILE, expected_sps=1_000.0, expected_sps_ci95=(990.0, 1_010.0))
    rates = runs(80_000, 100_000, 120_000, speed=None)
    assert check_throughput(modest, rates, 0.1).verdict == "holds"


def test_a_faster_machine_does_not_hide_a_raised_promise() -> None:
    # 120,000 of 130,000 is 92 %, but on a machine that is 1.2 times as fast: 77 %.
    raised = replace(PROFILE, expected_sps=130_000.0)
    rates = runs(119_000, 121_000, 120_000, 120_000, speed=1.2)
    assert check_throughput(raised, rates, 0.1).verdict == "drifted"


def test_probes_that_differ_as_much_as_the_rates_leave_it_open() -> None:
    # Relative to the probe 80 % on average, but anything from 50 to 110 %.
    records = [
        replace(runs(60_000, speed=speed, contaminated=NOISE)[0], replicate=number)
        for number, speed in enumerate((1.2, 0.9, 0.6, 0.6))
    ]
    assert check_throughput(PROFILE, records, 0.1).verdict == "unclear"


def test_the_probe_relates_to_the_measurements_it_stood_beside() -> None:
    # A trial at 200,000 without a probe and a finalist at 100,000 beside half the reach: 150,000
    # are promised, and 100,000 at half the reach are what they always were.
    promise = {**REACH, "sps_per_reach": 100_000 / 1e10, "sps": 150_000.0}
    profile = replace(
        PROFILE, expected_sps=150_000.0, measured={**PROFILE.measured, "probe": promise}
    )
    check = check_throughput(profile, runs(100_000, 101_000, 99_000, speed=0.5), 0.1)
    assert check.verdict == "unclear"
    assert "the machine itself is slower" in check.reason


def test_a_promise_raised_by_thirty_percent_has_drifted() -> None:
    raised = replace(PROFILE, expected_sps=130_000.0)
    check = check_throughput(raised, runs(99_000, 101_000, 100_000, 100_000), 0.1)
    assert check.verdict == "drifted"
    assert check.reason.startswith("77% (")
    assert ", 77% (" in check.reason


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
    # Pooled over 2 + 2 degrees of freedom s = 0.1; t(4) = 2.776; √(1/4 + 1/3): ±0.212 below 0.8.
    assert check_quality(PROFILE, [0.5, 0.6, 0.7], 0.1).verdict == "holds"
    assert check_quality(PROFILE, [0.45, 0.55, 0.65], 0.1).verdict == "drifted"
    # Without spread the tolerance alone: 0.72.
    certain = replace(PROFILE, measured={"replicates": 3})
    assert check_quality(certain, [0.73, 0.73], 0.1).verdict == "holds"
    assert check_quality(certain, [0.71, 0.71], 0.1).verdict == "drifted"
    assert check_quality(PROFILE, [], 0.1).verdict == "unmeasured"


def test_a_spread_as_large_as_the_promise_says_nothing_of_quality() -> None:
    assert check_quality(PROFILE, [0.1, 0.4, 0.9], 0.1).verdict == "unclear"


def soak(*, resident: list[int], threads: list[int]) -> list[CurvePoint]:
    return [
        CurvePoint(
            block=number,
            env_steps=number,
            seconds=1.0,
            metrics={},
            threads=count,
            resident_bytes=held,
        )
        for number, (held, count) in enumerate(zip(resident, threads, strict=True))
    ]


def test_a_flat_soak_holds_even_if_it_settles_first() -> None:
    settling = [200_000_000] * 4 + [300_000_000] * 28
    checks = check_flat(soak(resident=settling, threads=[9] * 4 + [12] * 28))
    assert [check.verdict for check in checks] == ["holds", "holds"]


def test_memory_that_keeps_growing_has_drifted() -> None:
    # 2 MB a block: 16 MB are reached between the second quarter's middle and the last's, 32 apart.
    leaking = [300_000_000 + 2_000_000 * number for number in range(32)]
    memory, threads = check_flat(soak(resident=leaking, threads=[12] * 32))
    assert (memory.verdict, threads.verdict) == ("drifted", "holds")
    assert memory.reason == "from 0.323 to 0.355 GB"


def test_threads_that_keep_coming_have_drifted() -> None:
    checks = check_flat(soak(resident=[300_000_000] * 32, threads=list(range(12, 44))))
    assert [check.verdict for check in checks] == ["holds", "drifted"]


def test_a_soak_of_few_blocks_says_nothing() -> None:
    (check,) = check_flat(soak(resident=[1] * 7, threads=[1] * 7))
    assert check.verdict == "unmeasured"


def test_what_an_allocator_keeps_is_judged_too() -> None:
    leaking = [
        replace(point, held_bytes=10**9 + 10**7 * number)
        for number, point in enumerate(soak(resident=[10**9] * 32, threads=[9] * 32))
    ]
    verdicts = {check.what: check.verdict for check in check_flat(leaking)}
    assert verdicts == {
        "memory over the soak": "holds",
        "device memory over the soak": "drifted",
        "threads over the soak": "holds",
    }
