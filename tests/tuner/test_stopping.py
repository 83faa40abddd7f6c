"""When a search ends, from records made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from storage.records import TrialRecord
from tests.tuner.measurements import failure, record
from tuner.stopping import (
    FIRST_GUESS_S,
    counted,
    expected_again_s,
    expected_trial_s,
    finalists_reserve_s,
    gain_is_spent,
    reason_to_stop,
)


def scored(scores: Sequence[float | None]) -> list[TrialRecord]:
    """Return a trial for each score, of a config of its own, numbered from the baseline's 0."""
    return [record(number, final_score=score) for number, score in enumerate(scores)]


def why(records: Sequence[TrialRecord], **changes: Any) -> str | None:
    """Ask with the defaults of the command line and a space that is not exhausted."""
    asked: dict[str, Any] = {
        "trials": None,
        "patience": 15,
        "min_gain": 0.01,
        "min_trials": 20,
        "untried": 100,
        "time_left_s": None,
    }
    return reason_to_stop(records, **(asked | changes))


def test_complete_and_pruned_trials_count_and_refused_and_interrupted_ones_do_not() -> None:
    statuses = ("oom", "diverged", "timeout", "pruned", "predicted_oom", "interrupted")
    records = [record(0), *(failure(n, status) for n, status in enumerate(statuses, 1))]
    assert [r.trial for r in counted(records)] == [0, 1, 2, 3, 4]


def test_replicates_do_not_count() -> None:
    records = [record(0), record(0, replicate=1), record(0, replicate=2), record(1)]
    assert len(counted(records)) == 2


def test_of_a_config_that_crashed_twice_only_the_second_crash_counts() -> None:
    again = {"num_envs": 64 * 2, "status": "crashed"}  # the config of trial 1
    assert counted([record(0), failure(1, "crashed")]) == [record(0)]
    twice = [record(0), failure(1, "crashed"), record(2, **again)]
    assert [r.trial for r in counted(twice)] == [0, 2]
    healed = [record(0), failure(1, "crashed"), record(2, num_envs=64 * 2)]
    assert [r.trial for r in counted(healed)] == [0, 2]


def test_the_number_of_trials_ends_a_search_once_so_many_count() -> None:
    records = [record(0), failure(1, "predicted_oom"), record(2)]
    assert why(records, trials=3) is None
    assert why(records, trials=2) == "--trials 2 reached"


def test_an_exhausted_space_ends_a_search_and_says_so() -> None:
    reason = why([record(0), record(1)], untried=0)
    assert reason == "every config of the space has been tried (2 trials)"


def test_a_gain_within_the_last_trials_keeps_a_search_going() -> None:
    # Best of the first two 0.50; of the last three 0.52, which is more than 0.50 + 0.01.
    assert not gain_is_spent(scored([0.50, 0.40, 0.3, 0.52, 0.4]), patience=3, min_gain=0.01)


def test_a_gain_of_exactly_min_gain_is_none() -> None:
    assert gain_is_spent(scored([0.5, 0.25, 0.75]), patience=2, min_gain=0.25)
    assert not gain_is_spent(scored([0.5, 0.25, 0.76]), patience=2, min_gain=0.25)


def test_patience_needs_more_trials_than_its_length() -> None:
    assert not gain_is_spent(scored([0.5, 0.4, 0.4]), patience=3, min_gain=0.01)
    assert gain_is_spent(scored([0.5, 0.4, 0.4, 0.4]), patience=3, min_gain=0.01)


def test_trials_without_a_score_raise_nothing_but_use_up_patience() -> None:
    records = [*scored([0.5]), failure(1, "oom"), failure(2, "diverged")]
    assert gain_is_spent(records, patience=2, min_gain=0.01)


def test_what_did_not_learn_raises_nothing_however_well_it_scores() -> None:
    busy = record(1, final_score=0.58, quality_acceptable=False)
    records = [record(0, final_score=0.5), busy, record(2, final_score=0.57)]
    assert not gain_is_spent(records, patience=1, min_gain=0.01)
    # A second seed, and then a third, may say that it learns after all.
    learned = record(1, replicate=1, final_score=0.58)
    assert not gain_is_spent([*records, learned], patience=1, min_gain=0.01)
    third = replace(learned, replicate=2)
    assert gain_is_spent([*records, learned, third], patience=1, min_gain=0.01)


def test_patience_does_not_end_a_search_that_has_no_score_to_compare_with() -> None:
    records = [failure(0, "oom"), failure(1, "oom"), record(2)]
    assert not gain_is_spent(records, patience=2, min_gain=0.01)


def test_patience_compares_the_mean_over_replicates_not_a_lucky_first_measurement() -> None:
    # The baseline measured 0.70 by luck; over its replicates 0.70, 0.40, 0.40 its mean is 0.50,
    # which 0.55 in the last two trials beats by more than 0.01.
    lucky = [
        record(0, final_score=0.70),
        record(0, replicate=1, final_score=0.40),
        record(0, replicate=2, final_score=0.40),
    ]
    later = [record(1, final_score=0.55), record(2, final_score=0.45)]
    assert not gain_is_spent([*lucky, *later], patience=2, min_gain=0.01)
    assert gain_is_spent([lucky[0], *later], patience=2, min_gain=0.01)


def test_patience_leaves_out_a_contaminated_measurement_where_a_clean_one_exists() -> None:
    # Trial 1 read 0.9 beside another process and 0.5 when it was measured again alone.
    disturbed = record(1, final_score=0.9, contaminated="load of other processes of 40 %")
    again = record(1, replicate=1, final_score=0.5)
    records = [record(0, final_score=0.5), disturbed, again, record(2, final_score=0.4)]
    assert gain_is_spent(records, patience=2, min_gain=0.01)


def test_patience_never_ends_a_search_before_the_least_number_of_trials() -> None:
    flat = scored([0.5] * 19)
    assert why(flat) is None
    assert why([*flat, record(19, final_score=0.5)]) == "no gain above 0.01 in the last 15 trials"


def test_the_same_table_gives_the_same_answer_after_a_resume() -> None:
    # Nothing but the records is asked: read back in another order they end the search as well.
    records = scored([0.5] * 20)
    assert why(list(records)) == why(records) is not None


def test_a_trial_is_expected_to_take_the_upper_quartile_of_those_that_succeeded() -> None:
    # Quartiles of 1, 2, 3, 4, 5, 6, 7 by the exclusive method: the third is at 3/4 · 8 = 6.
    records = [record(n, duration=float(n + 1)) for n in range(7)]
    records.append(failure(7, "timeout", duration=300.0))
    assert expected_trial_s(records) == 6.0
    assert finalists_reserve_s(records, 3) == 18.0


def test_measuring_once_more_is_expected_to_take_the_program_from_the_cache() -> None:
    # All took 12 s, 8 of them compiling; the baseline's repeats compiled in 2 and 4 s.
    cold = [record(n, duration=12.0, phases={"compile": 8.0}) for n in range(3)]
    warm = [
        record(0, replicate=n, duration=4.0 + took_s, phases={"compile": took_s})
        for n, took_s in ((1, 2.0), (2, 4.0))
    ]
    assert expected_again_s([*cold, *warm]) == 12.0 - 8.0 + 3.0
    assert finalists_reserve_s([*cold, *warm], 2) == 2 * 7.0
    # Repeats of the baseline were probed, for 1 s; so are finalists.
    probed = [
        replace(r, duration=(r.duration or 0) + 1, phases=r.phases | {"probe": 1.0}) for r in warm
    ]
    assert expected_again_s([*cold, *probed]) == 12.0 - 8.0 + 3.0 + 1.0
    assert expected_again_s(cold) == expected_trial_s(cold) == 12.0


def test_before_any_trial_was_timed_a_guess_stands_in() -> None:
    assert expected_trial_s([]) == FIRST_GUESS_S
    assert expected_trial_s([record(0, duration=4.0)]) == 4.0


@pytest.mark.parametrize(("left_s", "ends"), [(24.1, False), (23.9, True), (-5.0, True)])
def test_no_trial_starts_that_would_eat_the_finalists_reserve(left_s: float, ends: bool) -> None:
    # Every trial takes 6 s: one more and three finalists need 24 s.
    records = [record(n, duration=6.0) for n in range(3)]
    reason = why(records, time_left_s=left_s)
    assert (reason is not None) is ends
    assert reason is None or "budget is spent" in reason
    # All three profiles' configs have been measured twice: only the next trial's own may follow.
    assert why(records, time_left_s=left_s, finalists=1) is (None if left_s > 12 else reason)
