"""A study as a whole: what it makes of its baseline, when it ends, and with which exit code."""

import statistics
import time
from dataclasses import replace

import pytest

from storage.recovery import record_of
from storage.telemetry import Telemetry
from tests.conftest import Calibrated, Finished
from tests.tuner.studies import (
    SMALL,
    SPACE,
    WORKLOAD,
    Studies,
    config_of,
    is_infeasible,
    kill_tree,
    states,
    wait_for_line,
)
from tuner.aggregate import that_count
from tuner.search.known import MEASUREMENTS_ATTR
from tuner.space import HardwareConfig

INSIDE = HardwareConfig(16, 16, 2, 2)


def test_one_trial_is_the_baseline_and_too_little_to_export(calibrated: Calibrated) -> None:
    assert calibrated.ended.code == 7
    last = calibrated.ended.err.strip().splitlines()[-1]
    assert "profiles must be chosen from at least 3 feasible configs, but got 1" in last
    assert not list((calibrated.studies.folder / "runs/small").glob("profiles/*.yaml"))


def test_the_baseline_is_trial_0_with_three_replicates(calibrated: Calibrated) -> None:
    records = calibrated.studies.records("small")
    assert [(r.trial, r.replicate, r.status) for r in records] == [
        (0, 0, "success"),
        (0, 1, "success"),
        (0, 2, "success"),
    ]
    assert {config_of(r) for r in records} == {INSIDE}
    (trial,) = calibrated.studies.trials("small")
    assert trial.state.name == "COMPLETE"
    # The search knows the baseline as the mean of its measurements.
    shown = record_of(trial)
    assert shown is not None
    assert shown.replicate == 0
    clean = that_count(records)
    for name in ("sps", "quality_score", "final_score"):
        mean = statistics.fmean(getattr(record, name) for record in clean)
        assert getattr(shown, name) == pytest.approx(mean)
    assert trial.value == shown.final_score
    assert trial.user_attrs[MEASUREMENTS_ATTR] == len(clean)
    assert trial.params == INSIDE.as_dict()
    assert not is_infeasible(trial)


def test_quality_rests_on_the_policy_at_four_points_of_its_training(calibrated: Calibrated) -> None:
    scale = calibrated.studies.facts("small")["references"]["quality"]
    records = calibrated.studies.records("small")
    learned = [r.learning_return for r in records if r.learning_return is not None]
    returned = [r.mean_return for r in records if r.mean_return is not None]
    assert scale["num_evaluations"] == 4
    assert scale["baseline_learning"] == pytest.approx(statistics.fmean(learned))
    assert scale["baseline_return"] == pytest.approx(statistics.fmean(returned))
    assert learned != returned
    best, chance = scale["best_return"], scale["random_return"]
    for record, value in zip(records, learned, strict=True):
        # Health is at most 1, and 1 here.
        progress = (value - chance) / (best - chance)
        assert record.quality_score == pytest.approx(min(1.0, max(0.0, progress)))


def test_a_baseline_outside_the_space_is_a_trial_without_parameters(finished: Finished) -> None:
    baseline, *others = finished.studies.trials("done")
    assert (baseline.state.name, baseline.params, baseline.distributions) == ("COMPLETE", {}, {})
    assert config_of(finished.studies.record("done", 0)) == HardwareConfig(32, 16, 2, 2)
    shown = record_of(baseline)
    assert shown is not None
    assert baseline.value == shown.final_score
    # The space itself is tried whole: four configs, each once.
    assert states(others) == ["COMPLETE"] * 4
    assert len({config_of(finished.studies.record("done", t.number)) for t in others}) == 4


@pytest.mark.long
def test_a_baseline_inside_the_space_is_never_tried_again(small: Studies) -> None:
    assert small.resume("small", "--trials", "9", "--min-feasible", "9").code == 7
    own = [r for r in small.records("small") if r.replicate == 0]
    assert len(own) == 4  # the baseline and the three other configs of the space
    assert len({config_of(r) for r in own}) == 4
    ended = small.facts("small")["ended"]
    assert ended["reason"] == "every config of the space has been tried (4 trials)"
    assert "at least 9 feasible configs, but got 4" in ended["refusal"]


@pytest.mark.long
def test_a_space_of_which_nothing_fits_ends_with_3_whatever_the_baseline_did(
    studies: Studies,
) -> None:
    # The baseline 16x16 (64 kB) fits into 90 kB; the one config of the space (16x32, 118 kB)
    # does not.
    space = ("--num-envs", "16", "--num-steps", "32", "--num-minibatches", "2", "--num-epochs", "2")
    ended = studies.start(
        "t", *WORKLOAD, *space, "--baseline", "16,16,2,2", "--memory-limit", "90kB"
    )
    assert ended.code == 3
    assert "a study must have a feasible config, but got none of 1" in ended.err
    assert [r.status for r in studies.records("t")] == ["success"] * 3 + ["predicted_oom"]
    assert states(studies.trials("t")) == ["COMPLETE", "PRUNED"]
    assert studies.resume("t").code == 3


def test_a_limit_that_not_even_the_smallest_config_meets_ends_with_3(studies: Studies) -> None:
    ended = studies.start("t", *SMALL, "--memory-limit", "1kB")
    assert ended.code == 3
    assert "raise --memory-limit" in ended.err
    assert studies.trials("t") == []


@pytest.mark.long
def test_a_baseline_that_does_not_fit_gives_way_to_the_largest_smaller_config(
    studies: Studies,
) -> None:
    # 16x32 needs 118 kB; of the smaller batches 256 is the largest, at 64 kB.
    ended = studies.start(
        "t", *SPACE, *WORKLOAD, "--baseline", "16,32,2,2", "--memory-limit", "90kB", "--trials", "1"
    )
    assert ended.code == 7
    assert "the baseline 16x32 mb2 ep2 does not fit in memory: using" in ended.err
    assert {config_of(r).batch_size for r in studies.records("t")} == {256}


def test_a_study_without_time_for_another_trial_ends_at_its_budget(small: Studies) -> None:
    # Less than the four trials' time that the next one and the finalists would need.
    left = 3 * max(r.duration or 0.0 for r in small.records("small"))
    assert small.resume("small", "--trials", "9", "--budget", f"{left:.0f}s").code == 7
    assert states(small.trials("small")) == ["COMPLETE"]
    assert "budget is spent" in small.facts("small")["ended"]["reason"]


def test_a_study_ends_within_its_budget_and_one_trials_grace(small: Studies) -> None:
    # The baseline is said to have taken no time, so that trials are begun to the very end.
    with Telemetry(small.url("small")) as telemetry:
        for record in small.records("small"):
            telemetry.save("small", replace(record, duration=0.1))
    started = time.monotonic()
    ended = small.resume("small", "--trials", "9", "--budget", "7s")
    took_s = time.monotonic() - started
    assert ended.code in (0, 7), ended.err
    grace_s = max(r.duration or 0.0 for r in small.records("small"))
    assert took_s < 7 + grace_s + 30  # start and end of a command on a loaded machine
    assert "RUNNING" not in states(small.trials("small"))


def test_a_study_that_is_running_in_another_process_is_refused(small: Studies) -> None:
    with small.begin("resume", "small", "--trials", "2", fault="1:hang") as process:
        assert wait_for_line(process, "trial 1:") is not None
        ended = small.resume("small", "--trials", "2")
        assert process.poll() is None
        kill_tree(process.pid)
    assert ended.code == 4
    assert "'small' is running in another" in ended.err
    assert states(small.trials("small")) == ["COMPLETE", "RUNNING"]
