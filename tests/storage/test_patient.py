"""Optuna's storage on databases that lose connections before and after the commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from storage.errors import StorageUnavailable
from storage.patience import Patience
from storage.patient import PatientStorage, patient
from storage.recovery import queue_again
from storage.studies import create_study

Opened = Callable[..., PatientStorage]
MOMENTS = ("before", "after")


@contextmanager
def losing(storage: PatientStorage, moment: str, *, times: int = 1) -> Iterator[list[int]]:
    """Lose the connection `times` times, before the commit of a change or right after it.

    The driver's own commit runs in the second case: the change is made and nobody is told.
    """
    lost: list[int] = []
    writes = ("INSERT", "UPDATE", "DELETE")

    def note(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        connection.info["writes"] = statement.startswith(writes) or connection.info.get("writes")

    def lose(connection: sa.Connection) -> None:
        if not connection.info.pop("writes", False) or len(lost) >= times:
            return
        lost.append(1)
        if moment == "after":
            driver = connection.connection.driver_connection
            assert driver is not None
            driver.commit()
        raise sa.exc.OperationalError("COMMIT", {}, Exception("the connection was lost"))

    sa.event.listen(storage.engine, "after_cursor_execute", note)
    sa.event.listen(storage.engine, "commit", lose)
    try:
        yield lost
    finally:
        sa.event.remove(storage.engine, "after_cursor_execute", note)
        sa.event.remove(storage.engine, "commit", lose)


@pytest.fixture
def storage(opened: Opened, url: str) -> PatientStorage:
    return opened(url)


def waiting(storage: PatientStorage, *, limit_s: float = 60) -> Patience:
    return Patience(storage.url, say=lambda line: None, limit_s=limit_s)


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_call_of_a_trial_is_carried_out_once(storage: PatientStorage, moment: str) -> None:
    study = create_study(storage, "demo")

    def objective(trial: optuna.Trial) -> float:
        for name, value in (("num_envs", 8), ("num_steps", 16)):
            with losing(storage, moment) as lost:
                trial.suggest_categorical(name, (value,))
            assert lost
        with losing(storage, moment) as lost:
            trial.set_user_attr("sps", 1.0)
            trial.report(0.25, step=1)
        assert lost
        return 0.5

    with patient(storage, waiting(storage)):
        for _ in range(2):
            with losing(storage, moment) as lost:
                trial = study.ask()
            assert lost
            value = objective(trial)
            with losing(storage, moment) as lost:
                study.tell(trial, value)
            assert lost
    trials = study.get_trials()
    assert [t.number for t in trials] == [0, 1]
    for finished in trials:
        assert (finished.state, finished.value) == (TrialState.COMPLETE, 0.5)
        assert finished.params == {"num_envs": 8, "num_steps": 16}
        assert finished.intermediate_values == {1: 0.25}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_trial_is_queued_once_and_taken_once(storage: PatientStorage, moment: str) -> None:
    study = create_study(storage, "demo")
    trial = study.ask()
    trial.suggest_categorical("num_envs", (8, 16))
    with patient(storage, waiting(storage)):
        with losing(storage, moment) as lost:
            queue_again(study, 0)
        assert lost
        study.tell(0, state=TrialState.FAIL)
        with losing(storage, moment) as lost:
            again = study.ask()
        assert lost
    assert again.number == 1
    assert [t.state.name for t in study.get_trials()] == ["FAIL", "RUNNING"]


def test_a_trial_that_another_worker_took_meanwhile_is_left_to_it(storage: PatientStorage) -> None:
    study = create_study(storage, "demo")
    study.enqueue_trial({"num_envs": 8})
    with patient(storage, waiting(storage)), losing(storage, "before") as lost:
        # What another worker does between our two attempts.
        assert storage.patience is not None

        def be_taken() -> None:
            if storage.get_trial(1).state == TrialState.WAITING:
                other = PatientStorage.__mro__[1].set_trial_state_values
                other(storage, 1, TrialState.RUNNING)  # type: ignore[attr-defined]

        storage.patience.on_pause = be_taken
        trial = study.ask()
        assert lost
    assert trial.number == 1


def test_a_study_that_is_given_up_is_left_as_by_a_kill(storage: PatientStorage) -> None:
    study = create_study(storage, "demo")

    def objective(trial: optuna.Trial) -> float:
        with losing(storage, "before", times=10_000):
            trial.set_user_attr("sps", 1.0)
        return 0.5

    with (
        pytest.raises(StorageUnavailable, match=r"must answer, but got: the connection was lost"),
        patient(storage, waiting(storage, limit_s=0.5)),
    ):
        study.optimize(objective, n_trials=1)
    assert [t.state.name for t in study.get_trials()] == ["RUNNING"]


def test_a_trial_that_another_worker_made_meanwhile_is_left_to_it(storage: PatientStorage) -> None:
    study, other = create_study(storage, "demo"), PatientStorage(storage.url)
    with patient(storage, waiting(storage)), losing(storage, "before") as lost:
        assert storage.patience is not None
        storage.patience.on_pause = lambda: other.create_new_trial(study._study_id)
        assert study.ask().number == 1
        assert lost
    assert [t.state.name for t in study.trials] == ["RUNNING", "RUNNING"]
    other.remove_session()
    other.engine.dispose()


def test_a_connection_lost_while_trials_are_read_is_replaced(
    opened: Opened, postgres_url: str
) -> None:
    # Optuna takes the fault for one of its statement and goes on in the dead transaction.
    storage = opened(postgres_url)
    study = create_study(storage, "demo")
    study.ask()
    others = sa.create_engine(postgres_url)
    cut: list[int] = []

    def end_connection(connection: sa.Connection, cursor: Any, statement: str, *_: object) -> None:
        if "FROM trials" in statement and not cut:
            cut.append(cursor.connection.info.backend_pid)
            with others.connect() as other:
                other.execute(sa.select(sa.func.pg_terminate_backend(cut[0])))

    sa.event.listen(storage.engine, "before_cursor_execute", end_connection)
    with patient(storage, waiting(storage)):
        assert [trial.number for trial in study.get_trials()] == [0]
    assert cut
    others.dispose()
