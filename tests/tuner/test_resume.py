"""What a kill leaves, and what a resume makes of it."""

import random
import subprocess
from collections.abc import Sequence

import pytest
import yaml

from storage.csv_file import rewrite
from storage.records import TrialRecord
from tests.conftest import Calibrated, Finished
from tests.tuner.studies import (
    BASELINE,
    WORKLOAD,
    Studies,
    config_of,
    kill_tree,
    states,
    wait_for_line,
)

EIGHT = ("--num-envs", "8,16", "--num-steps", "16,32", "--num-minibatches", "2",
         "--num-epochs", "1,2")  # fmt: skip
FINISHED = ("COMPLETE", "PRUNED")


def _csv_equals_table(studies: Studies, name: str) -> bool:
    path = studies.folder / "runs" / name / "trials.csv"
    rewrite(path.with_suffix(".expected"), studies.records(name))
    written = sorted(path.read_text().splitlines())
    return written == sorted(path.with_suffix(".expected").read_text().splitlines())


def _finished(studies: Studies, name: str) -> dict[tuple[int, int], TrialRecord]:
    """Return the records that may never change: all of them, once the baseline is trial 0."""
    if not studies.trials(name):
        return {}
    return {(r.trial, r.replicate): r for r in studies.records(name)}


def _modified(studies: Studies, name: str) -> dict[str, int]:
    """Return when each file of a study was last written."""
    folder = studies.folder / "runs" / name
    return {p.name: p.stat().st_mtime_ns for p in folder.rglob("*.*") if p.is_file()}


def _kill_after(process: subprocess.Popen[str], words: str, wait_s: float) -> bool:
    """Kill the tree `wait_s` after a line with `words`; False if the command ended before."""
    if wait_for_line(process, words) is None:
        return False
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        return True
    return False


@pytest.mark.timeout(900)
@pytest.mark.long
@pytest.mark.parametrize("parts", [(2,), range(6)], ids=["four", "ten"])
def test_kills_lose_nothing_that_was_finished_and_leave_nothing_running(
    studies: Studies, calibrated: Calibrated, parts: Sequence[int]
) -> None:
    # A trial takes about as long as the quickest measurement of the baseline: the waits after
    # "trial" spread over starting, compiling, training, evaluating and saving. "score" is said
    # when a record is saved and Optuna is still to be told.
    length_s = min(r.duration or 0.0 for r in calibrated.studies.records("small"))
    draw = random.Random(2)
    moments = [("calibrating", 0.5), ("measurement 2 of 3", draw.uniform(0, length_s))]
    moments += [("score", 0.0)] if len(parts) > 1 else []
    moments += [("trial ", length_s * (part + draw.random()) / 6) for part in parts]
    moments += [("score", 0.0)]
    arguments = studies.start_arguments("t", *EIGHT, *WORKLOAD, *BASELINE)
    kept: dict[tuple[int, int], TrialRecord] = {}
    kills = 0
    for words, wait_s in moments:
        with studies.begin(*arguments) as process:
            kills += _kill_after(process, words, wait_s)
        arguments = ("resume", "t")
        now = _finished(studies, "t")
        assert {key: now.get(key) for key in kept} == kept
        kept = now
    assert kills == len(moments)

    # Far enough to try again what the last kill cut off; without the finalists.
    own = [r for r in kept.values() if r.replicate == 0 and r.status != "interrupted"]
    ended = studies.resume("t", "--trials", str(len(own) + 2), "--min-feasible", "99")
    assert ended.code == 7, ended.err
    now = _finished(studies, "t")
    assert {key: now.get(key) for key in kept} == kept
    assert _csv_equals_table(studies, "t")

    trials = studies.trials("t")
    assert not {"RUNNING", "WAITING"} & set(states(trials))
    for trial in trials:
        if trial.state.name not in FINISHED:
            assert "was killed while it ran" in trial.user_attrs["reason"]
            later = [t for t in trials[trial.number + 1 :] if t.params == trial.params]
            assert later or not trial.params
    before, own = own, [r for r in now.values() if r.replicate == 0 and r.status != "interrupted"]
    assert len(own) > len(before) > 0
    assert len({config_of(r) for r in own}) == len(own)
    assert {r.status for r in own} == {"success"}
    assert sum(state in FINISHED for state in states(trials)) == len(own)
    for record in now.values():
        if record.status == "interrupted":
            assert record.reason == "its process was killed while it ran"


@pytest.mark.long
def test_a_trial_that_was_cut_off_is_closed_with_its_reason_and_run_again(small: Studies) -> None:
    with small.begin("resume", "small", "--trials", "2", fault="1:hang") as process:
        assert _kill_after(process, "trial 1:", 0.2)
    assert states(small.trials("small")) == ["COMPLETE", "RUNNING"]
    assert small.resume("small", "--trials", "2").code == 7
    trials = small.trials("small")
    assert states(trials) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials[1].params == trials[2].params
    record = small.record("small", 1)
    assert (record.status, record.reason) == ("interrupted", "its process was killed while it ran")
    assert _csv_equals_table(small, "small")


def test_a_finished_study_goes_on_when_a_setting_has_changed(small: Studies) -> None:
    ended = small.resume("small", "--min-feasible", "1")
    assert "search ended: --trials 1 reached" in ended.err
    assert "must be chosen from at least" not in ended.out + ended.err
    assert small.facts("small")["config"]["min_feasible"] == 1  # whoever exports it later agrees


@pytest.mark.long
def test_a_study_that_was_killed_after_it_had_ended_once_is_taken_up_without_a_flag(
    small: Studies,
) -> None:
    # `small` ended at --trials 1. Told to go on and killed, it is unfinished again.
    with small.begin("resume", "small", "--trials", "2", fault="1:hang") as process:
        assert _kill_after(process, "trial 1:", 0.2)
    assert "unfinished" in small.run("list", "--json").out
    ended = small.resume("small")
    assert ended.code == 7
    assert "trial 1 was cut off: now fail" in ended.err
    assert "RUNNING" not in states(small.trials("small"))


@pytest.mark.long
def test_references_and_baseline_survive_a_resume_unchanged(
    small: Studies, calibrated: Calibrated
) -> None:
    before = calibrated.studies
    assert small.resume("small", "--trials", "2").code == 7
    assert small.facts("small")["references"] == before.facts("small")["references"]
    assert small.facts("small")["references"]["epsilon"] >= 0
    assert small.records("small")[:3] == before.records("small")
    assert small.trials("small")[0] == before.trials("small")[0]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--num-envs", "8,32"), "--num-envs"),
        (("--num-epochs", "4"), "--num-epochs"),
        (("--baseline", "8,16,2,2"), "--baseline"),
        (("--env", "gymnax:CartPole-v1"), "--env"),
        (("--env-param", "obs_dim=16"), "--env-param"),
        (("--learning-rate", "0.001"), "--learning-rate"),
        (("--network", "32"), "--network"),
    ],
)
def test_another_space_or_workload_is_refused_and_the_flag_named(
    calibrated: Calibrated, flags: tuple[str, ...], named: str
) -> None:
    ended = calibrated.studies.resume("small", *flags)
    assert ended.code == 4
    (line,) = ended.err.strip().splitlines()
    assert f"{named} must stay" in line


def test_the_studys_own_space_and_workload_given_again_are_no_other(small: Studies) -> None:
    same = ("--num-envs", "16,8", "--env", "stress", "--env-param", "obs_dim=8")
    assert small.resume("small", *same).code == 7


def test_a_config_file_edited_by_hand_is_refused(small: Studies) -> None:
    path = small.folder / "runs" / "small" / "config.yaml"
    data = yaml.safe_load(path.read_text())
    data["num_steps"] = [16, 64]
    path.write_text(yaml.safe_dump(data))
    ended = small.resume("small", "--trials", "2")
    assert ended.code == 4
    assert "config.yaml: num_steps must stay (16, 32)" in ended.err


def test_a_finished_study_prints_its_summary_exits_0_and_measures_nothing(
    finished: Finished,
) -> None:
    before, modified = finished.studies.records("done"), _modified(finished.studies, "done")
    ended = finished.studies.resume("done")
    assert ended.code == 0
    assert "balanced" in ended.out
    assert "every config" in ended.out or "--trials 5 reached" in ended.out
    assert finished.studies.records("done") == before
    assert _modified(finished.studies, "done") == modified


def test_a_finished_study_goes_on_when_it_is_told_of_more_trials(
    small: Studies, calibrated: Calibrated
) -> None:
    assert small.resume("small").code == 7  # as it ended: one config is too few to export
    assert small.records("small") == calibrated.studies.records("small")
    assert small.resume("small", "--trials", "2").code == 7
    assert [r.trial for r in small.records("small")] == [0, 0, 0, 1]
    assert states(small.trials("small")) == ["COMPLETE", "COMPLETE"]
