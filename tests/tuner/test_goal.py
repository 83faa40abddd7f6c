"""The time to a return as a score, by hand; what it changes of records, profiles and trainings."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import TrialRecord
from tests.tuner import trials
from tests.tuner.measurements import record
from tests.tuner.studies import SPACE, WORKLOAD, Studies
from tests.tuner.test_profile_rules import BASELINE, chosen, point
from tests.tuner.test_references import REFERENCES, measurement
from tuner.aggregate import NUMBERS, objectives, summarise
from tuner.goal import objective_of, time_score
from tuner.outcome import Completed
from tuner.references import judge

SECONDS = st.floats(1e-3, 1e6)


def score_of(seconds: float | None, best_return: float | None = None) -> float:
    return time_score(seconds, reference_s=30.0, best_return=best_return, start=20.0, target=120.0)


def test_the_score_of_a_time_by_hand() -> None:
    assert score_of(30.0) == 0.75
    assert score_of(10.0) == pytest.approx(0.5 + 0.5 * 30 / 40)
    assert score_of(None, 70.0) == 0.25  # half of the way from 20 to 120
    assert score_of(None, None) == score_of(None, 5.0) == 0.0


@given(SECONDS, SECONDS, st.none() | st.floats(-1e3, 1e3))
def test_sooner_is_never_worse_and_not_reached_is_below_all(
    one: float, other: float, best_return: float | None
) -> None:
    assert (score_of(one) >= score_of(other)) == (one <= other) or one == pytest.approx(other)
    assert 0.0 <= score_of(None, best_return) <= 0.5 < score_of(max(one, other)) <= 1.0


def test_a_study_of_the_composite_has_no_such_score_and_one_of_the_time_both() -> None:
    # Every block of 1 s returns 60, above the target of 50: reached after one second.
    assert judge(measurement(), REFERENCES).goal_score is None
    timed = judge(measurement(), replace(REFERENCES, target_s=3.0))
    assert timed.goal_score == pytest.approx(0.5 + 0.5 * 3 / 4)
    assert timed.final_score == judge(measurement(), REFERENCES).final_score
    assert objective_of(timed) == timed.goal_score
    assert objective_of(judge(measurement(), REFERENCES)) == timed.final_score
    # Never 200: progress from 20 to 200 is 40/180.
    far = judge(measurement(), replace(REFERENCES, target_s=3.0, target_return=200.0))
    assert far.goal_score == pytest.approx(0.5 * 40 / 180)
    assert far.seconds_to_target is None


def test_the_mean_over_replicates_is_the_same_for_the_search_and_for_the_report() -> None:
    records = [record(1, goal_score=0.8), record(1, replicate=1, goal_score=0.6), record(2)]
    expected = {NUMBERS(s.config): objective_of(s) for s in summarise(records)}
    assert objectives(records) == expected
    assert sorted(expected.values()) == pytest.approx([0.55, 0.7])


def timed(trial: int, seconds: float | None, memory_gb: float, score: float) -> TrialRecord:
    """Return a record that everything else dominates but for its time."""
    return point(trial, 30.0, 0.4, 50e3, score, goal_score=score_of(seconds, 70.0),
                 seconds_to_target=seconds, peak_memory_gb=memory_gb)  # fmt: skip


def test_balanced_is_the_soonest_however_poor_its_composite() -> None:
    baseline = replace(BASELINE, goal_score=0.75, seconds_to_target=30.0)
    records = [baseline, timed(1, 10.0, 2.0, 0.2), timed(2, None, 1.0, 0.9)]
    choice = chosen(records)["balanced"]
    assert (choice.summary.trial, choice.constraint_met) == (1, True)
    assert choice.reason.startswith("shortest time to the target return, of 3 measured configs")
    # 10.2 s cannot be told from 10 s with ε = 0.02: the one that takes less memory.
    lighter = replace(timed(3, 10.2, 1.0, 0.2), sps=51e3)
    never = replace(timed(4, None, 0.5, 0.2), goal_score=0.5, sps=52e3)
    tied = chosen([*records, lighter, never], epsilon=0.02)["balanced"]
    assert tied.summary.trial == 3
    assert tied.reason.startswith("least memory of 2 configs within ε = 0.020 of the shortest time")


def test_where_no_config_reached_the_target_balanced_says_so() -> None:
    records = [replace(timed(n, None, 1.0, 0.5), goal_score=0.1 * n) for n in range(3)]
    choice = chosen(records)["balanced"]
    assert (choice.summary.trial, choice.constraint_met) == (2, False)
    assert choice.notes == ("fallback: no config reached the target return in time",)


def trained_until(until_return: float, training_s: float, cache_dir: Path, log: Path) -> int:
    """Run a trial of 32 blocks' budget, check that it was judged, and return its blocks."""
    asked = trials.request(cache_dir, until_return=until_return, training_s=training_s)
    ran = trials.run(asked, log)
    assert ran.outcome == Completed()
    learning = [block for block in ran.blocks() if block.data["learning"]]
    measured, done = ran.first("measured"), ran.first("done")
    assert measured is not None
    assert measured.data["env_steps"] == learning[-1].data["env_steps"]
    assert done is not None
    assert done.data["mean_return"] is not None
    return len(learning)


def test_training_ends_at_the_first_block_that_returns_enough(
    cache_dir: Path, tmp_path: Path
) -> None:
    # The stress environment returns more than −9 a step from the first block on.
    assert trained_until(-9.0, 600.0, cache_dir, tmp_path / "trial.log") == 1


@pytest.mark.long
def test_training_goes_on_past_its_budget_until_its_time_is_up(
    cache_dir: Path, tmp_path: Path
) -> None:
    # It never returns 9; on a loaded machine much of the time goes to starting and compiling.
    assert trained_until(9.0, 60.0, cache_dir, tmp_path / "trial.log") > 32


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_study_of_the_time_to_a_return(studies: Studies) -> None:
    flags = ("--goal", "time-to-return", "--timeout", "20s", "--trials", "4",
             "--baseline", "16,16,2,2", "--learning-rate", "1e-2")  # fmt: skip
    ended = studies.start("timed", *SPACE, *WORKLOAD, *flags)
    assert ended.code in (0, 7), ended.err
    records = studies.records("timed")
    scored = [r for r in records if r.status == "success"]
    assert all(r.goal_score is not None and r.final_score is not None for r in scored)
    assert all((r.seconds_to_target is None) == (r.goal_score <= 0.5) for r in scored)
    # Trainings of other lengths have no milestones in common.
    assert all(r.learning_return == r.mean_return for r in scored)
    assert studies.facts("timed")["references"]["quality"]["num_evaluations"] == 1
    told = {t.number: t.value for t in studies.trials("timed")}
    assert all(told[r.trial] == r.goal_score for r in scored if r.replicate == 0 and r.trial)
    refused = studies.resume("timed", "--goal", "composite")
    assert refused.code == 4
    assert "--goal must stay time-to-return in this study" in refused.err
    refused = studies.resume("timed", "--timeout", "17m")
    assert refused.code == 4
    assert "--timeout must stay" in refused.err
