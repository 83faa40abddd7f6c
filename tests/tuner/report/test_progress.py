"""The state of the live view: what recorded events make of it, and how the rest is estimated."""

import statistics

import pytest

from tests.tuner.measurements import record
from tests.tuner.report.told import EVENTS, RECORDS, event, progress, stood
from tuner.observer import Asked, Kept
from tuner.report.progress import LEARNING, TIMING, estimate


@pytest.mark.parametrize(
    ("up_to", "phase"),
    [
        ("ready", "starting"),
        ("started", "compiling"),
        ("compiled", "warm-up"),
        ("warm", LEARNING),
        ("measured", "evaluating"),
    ],
)
def test_the_phase_is_what_the_trial_said_last(up_to: str, phase: str) -> None:
    running = progress(up_to).running
    assert running is not None
    assert running.phase == phase
    if up_to != "ready":
        assert running.phase_since == event(up_to).t


def test_blocks_past_the_budget_are_timed_and_teach_nothing() -> None:
    blocks = [e for e in EVENTS if e.name == "block"]
    learning = [e for e in blocks if e.data["learning"]]
    assert 0 < len(learning) < len(blocks)  # the recorded trial had both
    running = progress("block").running
    assert running is not None
    assert running.phase == TIMING
    first = blocks[len(learning)]
    assert running.phase_since == first.t - first.data["seconds"]
    assert running.env_steps == learning[-1].data["env_steps"] == 16384
    assert running.returns == tuple(e.data["metrics"]["mean_return"] for e in learning)
    assert running.sps == statistics.median(
        e.data["block_env_steps"] / e.data["seconds"] for e in blocks
    )
    assert running.predicted_bytes == event("compiled").data["predicted_bytes"]


def test_nothing_is_known_before_it_is_told() -> None:
    running = progress("ready").running
    assert running is not None
    assert (running.env_steps, running.sps, running.limit_bytes) == (None, None, None)


def test_samples_of_a_monitor_that_has_stopped_say_nothing() -> None:
    running, end = progress("block").running, event("block").t
    assert running is not None
    assert len(running.recent(end)) == 9  # every quarter of a second, both ends of two seconds
    assert running.recent(end + 10.0) == []


def test_a_measurement_that_is_kept_makes_room_for_what_comes() -> None:
    kept = progress("done", more=[Kept(record(5, final_score=0.7, sps=200_000.0))])
    assert kept.running is None
    assert kept.best is not None
    assert (kept.best.trial, kept.best.final_score) == (5, 0.7)
    assert list(kept.records) == [(0, 0), (0, 1), (1, 0), (2, 0), (3, 0), (5, 0)]
    assert progress("done", more=[Asked("random")]).running is None


def test_what_is_left_is_the_wanted_trials_at_the_mean_of_those_that_count() -> None:
    found = estimate(stood(), 1000.0)
    assert found is not None
    # Trials 1 and 2 count, and the baseline; the one that did not fit cost 3 s on the way to them:
    # 33 s / 2 for each of the 7 to come, and three finalists at (10 + 20) / 2 s.
    assert found.seconds == pytest.approx(7 * 16.5 + 3 * 15.0)
    assert (found.until, found.num_timed) == ("--trials 10", 3)
    assert found.left_s(1004.0) == pytest.approx(found.seconds - 4.0)
    # A trial that takes longer than the mean of 11 s holds up the rest.
    assert found.left_s(1500.0) == pytest.approx(found.seconds - 11.0)


def test_what_is_left_ends_with_the_space_or_the_budget_where_they_come_first() -> None:
    space = estimate(stood(untried=4), 0.0)
    assert space is not None
    assert (space.seconds, space.until) == (pytest.approx(4 * 11.0 + 45.0), "the whole space")
    budget = estimate(stood(time_left_s=60.0), 0.0)
    assert budget is not None
    assert (budget.seconds, budget.until) == (60.0, "--budget")
    assert budget.left_s(100.0) == 0.0


def test_workers_side_by_side_share_what_is_left() -> None:
    found = estimate(stood(untried=4, running=1), 0.0)  # the running one is still to end
    assert found is not None
    assert found.seconds == pytest.approx(5 * 11.0 / 2 + 45.0)


def test_a_disturbed_trial_costs_its_repeat_and_a_finalist_costs_the_search_nothing() -> None:
    disturbed = record(1, duration=10.0, contaminated="steal")
    repeats = [record(1, replicate=1, duration=12.0), record(2, replicate=1, duration=50.0)]
    found = estimate(stood([*RECORDS[:2], disturbed, *RECORDS[3:], *repeats], untried=3), 0.0)
    assert found is not None
    assert found.seconds == pytest.approx(3 * (33.0 + 12.0) / 3 + 3 * (10 + 20 + 12 + 50) / 4)


def test_one_trial_is_too_few_to_tell_how_long_others_take() -> None:
    assert estimate(stood(RECORDS[:3]), 0.0) is None


def test_once_the_search_has_ended_the_finalists_are_left() -> None:
    found = estimate(stood(trials=3), 0.0)
    assert found is not None
    assert found.left_s(0.0) == pytest.approx(45.0)
    assert found.left_s(100.0) == 0.0
