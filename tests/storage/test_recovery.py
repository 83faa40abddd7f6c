"""Trials whose process was killed: told what was measured, or queued again, once."""

import json
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from storage import recovery
from storage.database import sqlite_url
from storage.records import TrialRecord, record_from_dict
from storage.recovery import (
    CONSTRAINT,
    LINE,
    RECORD_ATTR,
    close_trial,
    is_surplus,
    is_taken_over,
    running_trials,
)
from storage.studies import create_study, load_study, open_storage
from storage.telemetry import Telemetry
from tests.storage.processes import FORK

optuna.logging.set_verbosity(optuna.logging.WARNING)
Opened = Callable[..., RDBStorage]
MakeRecord = Callable[..., TrialRecord]
CHOICES = optuna.distributions.CategoricalDistribution((8, 16, 32))


@pytest.fixture
def study(tmp_path: Path, opened: Opened) -> optuna.Study:
    return create_study(opened(sqlite_url(tmp_path / "study.db")), "demo")


def _start(study: optuna.Study, **options: object) -> FrozenTrial:
    """Leave a trial RUNNING, as a killed process does."""
    filled = {"params": {"num_envs": 16}, "distributions": {"num_envs": CHOICES}} | options
    study.add_trial(create_trial(state=TrialState.RUNNING, **filled))  # type: ignore[arg-type]
    return study.trials[-1]


def test_running_trials_are_those_that_run(study: optuna.Study) -> None:
    assert running_trials(study) == []
    study.enqueue_trial({"num_envs": 8})
    study.optimize(lambda trial: trial.suggest_categorical("num_envs", (8, 16, 32)), n_trials=1)
    _start(study)
    study.enqueue_trial({"num_envs": 8})
    assert [trial.number for trial in running_trials(study)] == [1]


def test_a_finished_measurement_is_told_with_its_score(
    study: optuna.Study, make_record: MakeRecord
) -> None:
    trial = _start(study)
    record = make_record(trial=trial.number, final_score=0.625)
    assert close_trial(study, 0, reason="killed", record=record) == TrialState.COMPLETE
    closed = study.trials[0]
    assert (closed.value, closed.constraints) == (0.625, {CONSTRAINT: 0.0})
    shown = dict(closed.user_attrs)
    assert max(map(len, shown[RECORD_ATTR].splitlines())) <= LINE
    assert record_from_dict(json.loads(shown.pop(RECORD_ATTR))) == record
    assert shown == {"status": "success", "sps": 125_000.5, "final_score": 0.625}
    assert isinstance(closed.datetime_complete, datetime)
    assert study.best_trial.number == 0
    assert len(study.trials) == 1


@pytest.mark.parametrize(
    ("status", "violation"), [("oom", 1.0), ("predicted_oom", 1.0), ("timeout", 1.0),
                              ("diverged", 1.0), ("pruned", 0.0)]
)  # fmt: skip
def test_a_config_that_did_not_work_is_pruned_with_its_constraint(
    study: optuna.Study, make_record: MakeRecord, status: str, violation: float
) -> None:
    _start(study)
    record = make_record(trial=0, status=status, reason="no room", final_score=None)
    assert close_trial(study, 0, reason="killed", record=record) == TrialState.PRUNED
    closed = study.trials[0]
    assert (closed.user_attrs["status"], closed.user_attrs["reason"]) == (status, "no room")
    assert closed.constraints == {CONSTRAINT: violation}
    assert len(study.trials) == 1


def test_a_given_value_replaces_the_score(study: optuna.Study, make_record: MakeRecord) -> None:
    """A missing component's median, and under the GP sampler the worst score of an OOM."""
    _start(study)
    _start(study)
    unscored = make_record(trial=0, final_score=None)
    with pytest.raises(ValueError, match=r"trial 0 must have a score.*pass value="):
        close_trial(study, 0, reason="killed", record=unscored)
    assert close_trial(study, 0, reason="killed", record=unscored, value=0.5).name == "COMPLETE"
    oom = make_record(trial=1, status="oom", final_score=None)
    assert close_trial(study, 1, reason="killed", record=oom, value=0.1).name == "COMPLETE"
    assert [trial.value for trial in study.trials] == [0.5, 0.1]
    assert study.best_trial.number == 0
    assert study.trials[1].constraints == {CONSTRAINT: 1.0}


@pytest.mark.parametrize("status", [None, "interrupted", "crashed"])
def test_an_unfinished_trial_fails_and_is_queued_with_what_it_had(
    study: optuna.Study, make_record: MakeRecord, status: str | None
) -> None:
    _start(study, user_attrs={"kind": "probe", "status": "old"})
    record = None if status is None else make_record(trial=0, status=status, final_score=None)
    assert close_trial(study, 0, reason="killed by 9", record=record) == TrialState.FAIL
    failed, queued = study.trials
    assert failed.user_attrs["reason"] == "killed by 9"
    assert queued.state == TrialState.WAITING
    assert queued.user_attrs == {"kind": "probe"}
    study.optimize(lambda trial: trial.suggest_categorical("num_envs", (8, 16, 32)), n_trials=1)
    assert study.trials[1].params == {"num_envs": 16}
    assert study.trials[1].value == 16


def test_a_trial_is_queued_again_as_often_as_is_allowed(study: optuna.Study) -> None:
    _start(study)
    close_trial(study, 0, reason="killed", max_retries=1)
    assert study.ask().number == 1
    close_trial(study, 1, reason="killed again", max_retries=1)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]


def test_what_optuna_says_of_a_trial_that_another_has_closed_is_known(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        close_trial(study, trial.number, reason="thought dead")
        if trial.number:
            trial.set_user_attr("sps", 1.0)
        return 0.5

    for _ in range(2):
        with pytest.raises((ValueError, AssertionError)) as refused:
            study.optimize(objective, n_trials=1)
        assert is_taken_over(refused.value)
    with pytest.raises(UpdateFinishedTrialError) as late:
        study._storage.set_trial_user_attr(study.trials[0]._trial_id, "sps", 1.0)
    assert is_taken_over(late.value)
    assert not is_taken_over(ValueError("a config must have four dimensions"))
    assert not is_taken_over(AssertionError("another"))


def test_the_queue_keeps_what_was_not_suggested_yet(study: optuna.Study) -> None:
    _start(study, params={}, distributions={}, system_attrs={"fixed_params": {"num_envs": 32}})
    close_trial(study, 0, reason="killed")
    study.optimize(lambda trial: trial.suggest_categorical("num_envs", (8, 16, 32)), n_trials=1)
    assert study.trials[1].params == {"num_envs": 32}


def test_a_trial_of_which_nothing_is_known_is_not_queued(study: optuna.Study) -> None:
    _start(study, params={}, distributions={})
    assert close_trial(study, 0, reason="killed") == TrialState.FAIL
    assert len(study.trials) == 1


def test_a_baseline_without_parameters_is_queued_by_its_attributes(study: optuna.Study) -> None:
    _start(study, params={}, distributions={}, user_attrs={"baseline": "2048,128,8,4"})
    close_trial(study, 0, reason="killed")
    assert study.trials[1].user_attrs == {"baseline": "2048,128,8,4"}


@pytest.mark.parametrize("is_last", [False, True])
def test_a_crash_is_queued_again_unless_it_is_the_last(
    study: optuna.Study, make_record: MakeRecord, *, is_last: bool
) -> None:
    _start(study)
    record = make_record(trial=0, status="crashed", reason="it broke", final_score=None)
    state = close_trial(study, 0, reason="killed", record=record, is_last=is_last)
    assert state == (TrialState.PRUNED if is_last else TrialState.FAIL)
    assert study.trials[0].constraints == ({CONSTRAINT: 1.0} if is_last else {})
    assert [trial.state.name for trial in study.trials[1:]] == ([] if is_last else ["WAITING"])


def test_a_trial_that_was_told_meanwhile_is_not_repeated(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker, thought dead, tells it between the queueing of its repetition and its end."""
    trial = study.ask({"num_envs": CHOICES})
    fail = recovery._fail

    def told_first(*arguments: Any) -> None:
        monkeypatch.setattr(recovery, "_fail", fail)
        study.tell(trial.number, 0.5)
        fail(*arguments)

    monkeypatch.setattr(recovery, "_fail", told_first)
    assert close_trial(study, 0, reason="killed") == TrialState.COMPLETE
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL"]


def test_of_two_repetitions_the_later_one_is_surplus(study: optuna.Study) -> None:
    _start(study)
    for _ in range(2):  # as two processes do that look at the same time
        marks = {recovery.RETRY_OF: 0, "fixed_params": {"num_envs": 16}}
        study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=marks))
    assert [is_surplus(study, number) for number in range(3)] == [False, False, True]
    recovery._withdraw(study, study.trials[1])
    assert not is_surplus(study, 2)


def test_a_closed_trial_stays_as_it_is(study: optuna.Study, make_record: MakeRecord) -> None:
    _start(study)
    close_trial(study, 0, reason="killed")
    record = make_record(trial=0)
    assert close_trial(study, 0, reason="again", record=record) == TrialState.FAIL
    assert study.trials[0].user_attrs["reason"] == "killed"
    assert len(study.trials) == 2
    with pytest.raises(KeyError):
        close_trial(study, 9, reason="no such trial")


def test_a_kill_while_closing_queues_nothing_twice(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    _start(study)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            close_trial(study, 0, reason="killed")
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "WAITING"]
    close_trial(study, 0, reason="killed")
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]


def _run_until_killed(url: str, record: TrialRecord | None) -> None:
    study = load_study(open_storage(url, create=False), "demo")

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("num_envs", (8, 16, 32))
        with Telemetry(url) as telemetry:
            if record is not None:
                telemetry.save("demo", record)
        time.sleep(600)
        return 0.0

    study.optimize(objective, n_trials=1)


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_killed_process_loses_nothing_that_it_had_saved(
    url: str, opened: Opened, make_record: MakeRecord, is_saved: bool
) -> None:
    study = create_study(opened(url), "demo")
    study.enqueue_trial({"num_envs": 32})
    record = make_record(trial=0, num_envs=32) if is_saved else None
    child = FORK.Process(target=_run_until_killed, args=(url, record))
    child.start()
    with Telemetry(url) as telemetry:
        deadline = time.monotonic() + 60
        while not (study.trials[0].params and (not is_saved or telemetry.records("demo"))):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child.kill()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        for trial in running_trials(study):
            saved = telemetry.record("demo", trial.number)
            close_trial(study, trial.number, reason="the process was killed", record=saved)
    states = [trial.state.name for trial in study.trials]
    assert states == (["COMPLETE"] if is_saved else ["FAIL", "WAITING"])
    if not is_saved:
        assert study.trials[1].system_attrs["fixed_params"] == {"num_envs": 32}
