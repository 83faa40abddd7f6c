import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import TrialRecord
from tests.tuner.measurements import failure, record
from tuner.aggregate import ConfigSummary, combine_intervals, summarise
from tuner.space import HardwareConfig


def only(*records: TrialRecord) -> ConfigSummary:
    (summary,) = summarise(records)
    return summary


def test_means_and_standard_deviations_over_replicates() -> None:
    summary = only(
        record(0, sps=90_000.0, quality_score=0.4, final_score=0.5),
        record(0, replicate=1, sps=110_000.0, quality_score=0.6, final_score=0.6),
    )
    assert summary.config == HardwareConfig(64, 64, 4, 4)
    assert (summary.sps, summary.quality_score) == (100_000.0, 0.5)
    assert summary.final_score == pytest.approx(0.55)
    # Sample standard deviation of two is their distance over √2.
    assert summary.quality_score_sd == pytest.approx(0.2 / 2**0.5)
    assert summary.replicates == 2


def test_one_measurement_has_no_standard_deviation() -> None:
    summary = only(record(0))
    assert summary.quality_score_sd is None
    assert summary.sps_ci95 == (98_000.0, 102_000.0)


def test_contaminated_records_count_only_while_there_is_no_clean_one() -> None:
    disturbed = record(0, sps=50_000.0, contaminated="another process computed")
    alone = only(disturbed)
    assert (alone.sps, alone.contaminated, alone.replicates) == (50_000.0, True, 1)
    both = only(disturbed, record(0, replicate=1, sps=100_000.0))
    assert (both.sps, both.contaminated, both.replicates) == (100_000.0, False, 1)


def test_a_value_is_the_mean_of_those_that_know_it() -> None:
    summary = only(record(0, device_util=None), record(0, replicate=1, device_util=70.0))
    assert summary.device_util == 70.0
    assert only(record(0, device_util=None)).device_util is None


def test_replicate_intervals_combine_in_quadrature() -> None:
    # Half-widths 3,000 and 4,000: √((9 + 16)/4 · (1 + 1/2))·1,000 = 3,061.9 around 100,000.
    combined = combine_intervals(
        [
            record(0, sps=99_000.0, sps_ci95=(96_000.0, 102_000.0)),
            record(0, replicate=1, sps=101_000.0, sps_ci95=(97_000.0, 105_000.0)),
        ]
    )
    assert combined == pytest.approx((96_938.1, 103_061.9), abs=0.1)


def test_three_replicates_without_intervals_speak_for_themselves() -> None:
    # 99k, 100k, 101k: s = 1,000, t(2) = 4.3027, 4.3027·1000·√(1 + 1/3) = 4,968.3
    records = [
        record(0, replicate=r, sps=sps, sps_ci95=None)
        for r, sps in enumerate((99_000.0, 100_000.0, 101_000.0))
    ]
    assert combine_intervals(records) == pytest.approx((95_031.7, 104_968.3), abs=0.1)
    assert combine_intervals(records[:2]) is None
    assert combine_intervals([]) is None


def test_combined_intervals_cover_the_next_simulated_process() -> None:
    # Fresh processes N(100k, 2k); each with its exact interval for another, ±1.96·√2·2k = 5,543.7.
    # The fifth lies in the interval of four 95 times in 100; 1,000 rounds: ±0.007.
    generator = random.Random(4)
    covered = []
    for _ in range(1000):
        rates = [generator.gauss(100_000, 2_000) for _ in range(4)]
        records = [
            record(0, replicate=r, sps=sps, sps_ci95=(sps - 5_543.7, sps + 5_543.7))
            for r, sps in enumerate(rates)
        ]
        low, high = combine_intervals(records) or (0.0, 0.0)
        covered.append(low <= generator.gauss(100_000, 2_000) <= high)
    assert statistics.fmean(covered) == pytest.approx(0.95, abs=0.028)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([True], True),
        ([False], False),
        ([None], None),
        ([True, True, False], True),
        ([True, False], False),
        ([True, False, False], False),
        ([True, None, None], True),
    ],
)
def test_quality_is_acceptable_by_strict_majority(
    verdicts: list[bool | None], expected: bool | None
) -> None:
    records = [record(0, replicate=r, quality_acceptable=v) for r, v in enumerate(verdicts)]
    summary = only(*records)
    assert summary.quality_acceptable is expected
    assert summary.eligible is (expected is True)


def test_a_replicate_that_diverged_is_a_vote_against() -> None:
    diverged = failure(0, "diverged", replicate=1)
    assert only(record(0), diverged).quality_acceptable is False
    three = only(record(0), diverged, record(0, replicate=2), record(0, replicate=3))
    assert (three.quality_acceptable, three.failures, three.eligible) == (True, 1, True)


def test_a_config_that_fails_as_often_as_it_succeeds_is_not_eligible() -> None:
    summary = only(record(0), failure(0, "oom", replicate=1))
    assert summary.status == "success"
    assert summary.ineligible_reason == "it failed as often (1) as it succeeded (1)"


def test_crashes_and_interruptions_are_no_facts_about_the_config() -> None:
    summary = only(failure(0, "crashed"), failure(0, "interrupted"), record(0, replicate=1))
    assert (summary.failures, summary.eligible) == (0, True)


def test_a_config_that_never_ran_keeps_what_is_known_and_has_no_score() -> None:
    summary = only(failure(0, "predicted_oom", predicted_memory_gb=90.0, memory_limit_gb=60.0))
    assert summary.status == "predicted_oom"
    assert (summary.predicted_memory_gb, summary.memory_limit_gb) == (90.0, 60.0)
    assert (summary.sps, summary.final_score, summary.quality_score) == (None, None, None)
    assert (summary.eligible, summary.replicates) == (False, 0)


def test_a_config_without_a_component_in_use_is_not_eligible() -> None:
    summary = only(record(0, device_util=None, gpu_score=None, final_score=None))
    assert summary.ineligible_reason == "a component of its score was not measured"


def test_the_reason_of_unacceptable_learning_is_passed_on() -> None:
    summary = only(record(0, quality_acceptable=False, quality_reason="No parameter changed."))
    assert summary.ineligible_reason == "No parameter changed."


def test_a_config_queued_again_after_a_crash_is_one_config() -> None:
    again = record(7, num_envs=64)
    (summary,) = summarise([failure(0, "crashed"), again])
    assert (summary.trial, summary.status) == (7, "success")


def test_earlier_failure_15_a_device_that_told_nothing_is_unknown() -> None:
    silent: dict[str, Any] = {
        "device_util": None,
        "gpu_util": None,
        "joules_per_msteps": None,
        "peak_memory_gb": None,
    }
    summary = only(record(0, **silent), record(0, replicate=1, **silent))
    for name in ("device_util", "gpu_util", "joules_per_msteps", "peak_memory_gb"):
        assert getattr(summary, name) is None


@given(st.permutations(range(6)))
def test_the_order_of_records_does_not_matter(order: list[int]) -> None:
    records = [
        record(2),
        record(0, sps=90_000.0),
        record(0, replicate=1),
        record(1, contaminated="throttled"),
        record(1, replicate=1),
        failure(3, "oom"),
    ]
    summaries = summarise(records[index] for index in order)
    assert summaries == summarise(records)
    assert [summary.trial for summary in summaries] == [0, 1, 2, 3]


def test_intervals_are_at_least_as_wide_as_a_study_s_measurements_vary() -> None:
    # Two configs at ±20 % and ±10 % of their mean: s²/mean² = 0.08 and 0.02, pooled √0.05 with two
    # degrees of freedom, so t = 4.3027. The third, measured once: ±4.3027·√0.05·√2 = 136.06 %.
    records = [
        record(0, sps=80_000.0),
        record(0, replicate=1, sps=120_000.0),
        record(1, sps=90_000.0),
        record(1, replicate=1, sps=110_000.0),
        record(2, sps=100_000.0, sps_ci95=(98_000.0, 102_000.0)),
    ]
    low, high = summarise(records)[2].sps_ci95 or (None, None)
    assert low == 0.0
    assert high == pytest.approx(236_063, rel=1e-4)


def test_disturbed_measurements_widen_the_intervals_of_a_noisy_study_alone() -> None:
    noise = "steal of 30 % of the host"
    disturbed = [
        record(trial, replicate=replicate, sps=sps, contaminated=noise)
        for trial in (0, 1)
        for replicate, sps in enumerate((80_000.0, 120_000.0))
    ]
    alone = record(9, sps=100_000.0, sps_ci95=(98_000.0, 102_000.0))
    low, high = summarise([*disturbed, alone])[-1].sps_ci95 or (0.0, 0.0)
    assert high - low > 100_000.0
    quiet = [record(trial) for trial in range(2, 7)]
    assert summarise([*disturbed, *quiet, alone])[-1].sps_ci95 == (98_000.0, 102_000.0)


def test_one_pair_of_measurements_is_too_little_to_widen_by() -> None:
    pair = [record(0, sps=80_000.0), record(0, replicate=1, sps=120_000.0)]
    alone = record(1, sps=100_000.0, sps_ci95=(98_000.0, 102_000.0))
    assert summarise([*pair, alone])[1].sps_ci95 == (98_000.0, 102_000.0)
