"""Ties, constraints and fallbacks of the three rules, through `choose`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storage.records import TrialRecord
from tests.tuner.measurements import record
from tuner.aggregate import summarise
from tuner.profile_rules import Candidate, contenders
from tuner.profiles import Choice, choose, contest_between


def chosen(records: Sequence[TrialRecord], **changes: Any) -> dict[str, Choice]:
    """Choose among records, the first of which is the baseline's."""
    return choose(contest_between(summarise(records), **(arguments(records) | changes)))


def arguments(records: Sequence[TrialRecord]) -> dict[str, Any]:
    """Return what a contest is told beside its configs."""
    return {
        "components": ("gpu", "quality", "sps"),
        "epsilon": 0.02,
        "baseline": summarise(records)[0],
        "util_is_gpu": True,
        "quality_tie": 0.0,
    }


def contending(records: Sequence[TrialRecord]) -> list[Candidate]:
    """Return the contenders among records, the first of which is the baseline's."""
    contest = contest_between(summarise(records), **arguments(records))
    return contenders(contest.eligible, contest.rules)


def point(
    trial: int, util: float | None, quality: float, sps: float, score: float, **changes: Any
) -> TrialRecord:
    """Return a record whose SPS interval is ±1 %."""
    measured: dict[str, Any] = {
        "device_util": util,
        "quality_score": quality,
        "sps": sps,
        "sps_ci95": (0.99 * sps, 1.01 * sps),
        "final_score": score,
    }
    return record(trial, **(measured | changes))


BASELINE = point(0, 40.0, 0.5, 100e3, 0.50)


def test_the_clear_winners_of_three_aims() -> None:
    # trial  util  quality   sps  score
    #   0     40     0.50   100k   0.50   dominated by 1
    #   1     70     0.60   200k   0.80   balanced
    #   2     95     0.45   150k   0.70   max_gpu: 0.45 ≥ 0.8·0.5 = 0.40
    #   3     99     0.30   150k   0.60   busier still, but 0.30 < 0.40
    #   4     79.5   0.90   110k   0.75   max_quality: above 0.8·99 = 79.2
    records = [
        BASELINE,
        point(1, 70.0, 0.60, 200e3, 0.80),
        point(2, 95.0, 0.45, 150e3, 0.70),
        point(3, 99.0, 0.30, 150e3, 0.60),
        point(4, 79.5, 0.90, 110e3, 0.75),
    ]
    choices = chosen(records)
    # Only 95 and 99 exceed 80 %, fewer than three, so the limit is 0.8 · 99 = 79.2 %.
    assert [choices[n].summary.trial for n in ("balanced", "max_gpu", "max_quality")] == [1, 2, 4]
    assert all(choice.constraint_met for choice in choices.values())
    assert choices["balanced"].reason.startswith("best composite score, of 5 measured configs")
    assert "runner-up 320x64 mb4 ep4" in choices["balanced"].reason
    assert "quality of at least 0.8 × the baseline's" in choices["max_gpu"].reason
    assert "utilisation above 79.2 %" in choices["max_quality"].reason


def test_contenders_are_what_so_many_measurements_cannot_tell_from_the_best() -> None:
    # None dominates another. Of one measurement each 0.02 · √2 = 0.0283 can be told apart.
    best, close = point(1, 70.0, 0.60, 200e3, 0.800), point(2, 71.0, 0.59, 199e3, 0.775)
    beaten = point(3, 72.0, 0.58, 198e3, 0.771)
    found = contending([BASELINE, best, close, beaten])
    assert [c.summary.trial for c in found] == [1, 2]
    # Of two each 0.02, of two and one 0.02 · √1.5 = 0.0245.
    again = [replace(r, replicate=1) for r in (best, close)]
    assert [c.summary.trial for c in contending([BASELINE, best, close, *again])] == [1]
    assert [c.summary.trial for c in contending([BASELINE, best, close, again[0]])] == [1]


def test_a_contender_may_lie_just_off_the_front() -> None:
    best, below = point(1, 70.0, 0.60, 200e3, 0.800), point(2, 69.9, 0.599, 199e3, 0.798)
    records = [BASELINE, best, below]
    contest = contest_between(summarise(records), **arguments(records))
    assert [c.summary.trial for c in contest.front] == [1]
    assert [c.summary.trial for c in contending(records)] == [1, 2]


def test_balanced_tied_scores_and_overlapping_speeds_go_to_less_memory() -> None:
    # 0.790 is within 0.02 of 0.800; 198k ± 1 % and 200k ± 1 % overlap.
    records = [
        BASELINE,
        point(1, 70.0, 0.6, 200e3, 0.80, peak_memory_gb=4.0),
        point(2, 70.5, 0.6, 198e3, 0.79, peak_memory_gb=2.0),
    ]
    choice = chosen(records)["balanced"]
    assert choice.summary.trial == 2
    assert choice.reason.startswith("least memory of 2 configs within ε = 0.020 of the best score")


def test_memory_decides_no_tie_where_the_device_has_plenty() -> None:
    # 1 % of 80 GB is 0.8 GB: 4.0 and 3.5 GB are as little, 3.0 GB would be less.
    heavy = point(1, 70.0, 0.6, 200e3, 0.80, peak_memory_gb=4.0, memory_limit_gb=80.0)
    light = point(2, 70.5, 0.6, 198e3, 0.79, peak_memory_gb=3.5, memory_limit_gb=80.0)
    choice = chosen([BASELINE, heavy, light])["balanced"]
    assert choice.summary.trial == 1
    assert choice.reason.startswith("best score of 2 configs within ε = 0.020 of the best score")
    assert "whose throughput and memory cannot be told apart" in choice.reason
    lighter = replace(light, peak_memory_gb=3.0)
    assert chosen([BASELINE, heavy, lighter])["balanced"].summary.trial == 2


def test_balanced_tied_scores_and_separate_speeds_go_to_the_faster() -> None:
    # 200k ± 1 % and 220k ± 1 % do not overlap, and memory does not count then.
    records = [
        BASELINE,
        point(1, 70.0, 0.6, 200e3, 0.80, peak_memory_gb=1.0),
        point(2, 66.0, 0.6, 220e3, 0.79, peak_memory_gb=9.0),
    ]
    choice = chosen(records)["balanced"]
    assert choice.summary.trial == 2
    assert choice.reason.startswith("fastest of 2 configs within ε = 0.020 of the best score")


def test_balanced_scores_further_apart_than_epsilon_are_no_tie() -> None:
    records = [
        BASELINE,
        point(1, 70.0, 0.6, 200e3, 0.80, peak_memory_gb=9.0),
        point(2, 71.0, 0.6, 199e3, 0.77, peak_memory_gb=1.0),
    ]
    assert chosen(records)["balanced"].summary.trial == 1


def test_balanced_without_intervals_cannot_tell_speeds_apart() -> None:
    records = [
        BASELINE,
        point(1, 70.0, 0.6, 200e3, 0.80, peak_memory_gb=1.0, sps_ci95=None),
        point(2, 66.0, 0.6, 220e3, 0.79, peak_memory_gb=9.0),
    ]
    assert chosen(records)["balanced"].summary.trial == 1


def test_memory_is_compared_measured_with_measured() -> None:
    # Trial 2 has no measured peak: predictions decide, 3 GB against 2 GB.
    records = [
        BASELINE,
        point(1, 70.0, 0.6, 200e3, 0.80, peak_memory_gb=1.0, predicted_memory_gb=3.0),
        point(2, 70.5, 0.6, 198e3, 0.79, peak_memory_gb=None, predicted_memory_gb=2.0),
    ]
    assert chosen(records)["balanced"].summary.trial == 2


def test_unknown_memory_leaves_a_tie_to_the_score() -> None:
    unknown: dict[str, Any] = {"peak_memory_gb": None, "predicted_memory_gb": None}
    records = [
        BASELINE,
        point(1, 70.0, 0.6, 200e3, 0.80, **unknown),
        point(2, 70.5, 0.6, 198e3, 0.79, **unknown),
    ]
    choice = chosen(records)["balanced"]
    assert choice.summary.trial == 1
    assert choice.reason.startswith("best score of 2 configs within ε = 0.020 of the best score")


def test_max_gpu_within_two_points_goes_to_the_faster() -> None:
    # 94 and 95.9 are within two points of 96, 93.9 is not though it is the fastest.
    records = [
        BASELINE,
        point(1, 96.0, 0.6, 100e3, 0.80),
        point(2, 94.0, 0.6, 200e3, 0.80),
        point(3, 95.9, 0.6, 150e3, 0.80),
        point(4, 93.9, 0.6, 900e3, 0.80),
    ]
    choice = chosen(records)["max_gpu"]
    assert choice.summary.trial == 2
    assert choice.reason.startswith("fastest of 3 configs within two points of the highest")


def test_max_gpu_equal_in_speed_goes_to_less_memory() -> None:
    records = [
        BASELINE,
        point(1, 96.0, 0.6, 100e3, 0.80, peak_memory_gb=3.0),
        point(2, 95.0, 0.7, 100e3, 0.80, peak_memory_gb=2.0),
    ]
    assert chosen(records)["max_gpu"].summary.trial == 2


def test_max_gpu_falls_back_by_name_when_no_quality_suffices() -> None:
    # The baseline's learning is not acceptable, and nobody else reaches 0.8 · 0.9 = 0.72.
    records = [
        point(0, 40.0, 0.9, 100e3, 0.5, quality_acceptable=False),
        point(1, 96.0, 0.6, 100e3, 0.80),
        point(2, 70.0, 0.7, 100e3, 0.80),
    ]
    choice = chosen(records)["max_gpu"]
    assert (choice.summary.trial, choice.constraint_met) == (1, False)
    assert choice.notes == (
        "fallback: no config has quality of at least 0.8 × the baseline's, none reaches 0.720",
    )


def test_max_gpu_falls_back_by_name_when_the_baseline_has_no_quality() -> None:
    records = [
        point(0, 40.0, 0.5, 100e3, 0.5, quality_score=None, final_score=None),
        point(1, 96.0, 0.6, 100e3, 0.80),
        point(2, 70.0, 0.7, 100e3, 0.80),
    ]
    choice = chosen(records)["max_gpu"]
    assert choice.constraint_met is False
    assert "the baseline's is unknown" in choice.notes[0]


def test_max_quality_needs_80_percent_where_three_configs_have_it() -> None:
    records = [
        BASELINE,
        point(1, 81.0, 0.60, 100e3, 0.6),
        point(2, 82.0, 0.59, 100e3, 0.6),
        point(3, 83.0, 0.58, 100e3, 0.6),
        point(4, 79.0, 0.95, 100e3, 0.7),
    ]
    choice = chosen(records)["max_quality"]
    assert choice.summary.trial == 1
    assert "utilisation above 80.0 %" in choice.reason


def test_max_quality_on_a_cpu_is_relative_to_the_highest_utilisation() -> None:
    # The same configs, no GPU: the limit is 0.8 · 83 = 66.4 %.
    records = [
        BASELINE,
        point(1, 81.0, 0.60, 100e3, 0.6),
        point(2, 82.0, 0.59, 100e3, 0.6),
        point(3, 83.0, 0.58, 100e3, 0.6),
        point(4, 79.0, 0.95, 100e3, 0.7),
    ]
    choice = chosen(records, util_is_gpu=False)["max_quality"]
    assert choice.summary.trial == 4
    assert "utilisation above 66.4 %" in choice.reason


def test_max_quality_ties_are_resolved_as_balanced() -> None:
    # 0.88 is within 0.05 of 0.90, and has the better composite.
    records = [
        BASELINE,
        point(1, 60.0, 0.90, 100e3, 0.70),
        point(2, 60.0, 0.88, 150e3, 0.75),
    ]
    assert chosen(records)["max_quality"].summary.trial == 1
    tied = chosen(records, quality_tie=0.05)["max_quality"]
    assert tied.summary.trial == 2
    assert "best composite score among 2 configs within 0.050 of the best quality" in tied.reason


def test_without_utilisation_the_fallback_is_named() -> None:
    records = [
        point(0, None, 0.5, 100e3, 0.5),
        point(1, None, 0.6, 200e3, 0.6),
        point(2, None, 0.7, 150e3, 0.55),
    ]
    choices = chosen(records, components=("quality", "sps"))
    assert choices["max_gpu"].summary.trial == choices["balanced"].summary.trial == 1
    assert choices["max_quality"].summary.trial == 2
    for name in ("max_gpu", "max_quality"):
        assert choices[name].constraint_met is False
        assert choices[name].notes[0].startswith("fallback: utilisation is not in use")


def test_the_front_leaves_out_components_that_are_not_in_use() -> None:
    # With utilisation in use trial 1 is on the front; without, trial 2 dominates it.
    records = [BASELINE, point(1, 90.0, 0.6, 100e3, 0.9), point(2, 50.0, 0.7, 110e3, 0.8)]
    assert chosen(records)["balanced"].summary.trial == 1
    assert chosen(records, components=("quality", "sps"))["balanced"].summary.trial == 2
