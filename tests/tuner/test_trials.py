"""One trial of several workers: who chooses when, and what becomes of one that was taken over."""

import threading
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from storage.database import sqlite_url
from storage.heartbeat import Heartbeat
from storage.recovery import close_trial
from storage.studies import close_storage, create_study, load_study, open_storage
from tuner.search.sampler import make_sampler
from tuner.space import SearchSpace, config_of
from tuner.trials import run_one

SPACE = SearchSpace((8, 16, 32), (8, 16), (2, 4), (1, 2))
WORKERS = 3


@pytest.fixture
def url(tmp_path: Path) -> str:
    address = sqlite_url(tmp_path / "study.db")
    storage = open_storage(address, create=True)
    create_study(storage, "t")
    close_storage(storage)
    return address


def suggest(trial: optuna.Trial) -> float:
    for name, choices in SPACE.choices().items():
        trial.suggest_categorical(name, choices)
    return 0.5


def test_workers_that_choose_at_once_never_choose_the_same(url: str) -> None:
    # Of one seed: without waiting for each other they would propose alike.
    barrier = threading.Barrier(WORKERS)

    def choose() -> None:
        storage = open_storage(url, create=False)
        study = load_study(storage, "t", sampler=make_sampler("random", SPACE, seed=0))
        for _ in range(len(SPACE.configs()) // WORKERS):
            barrier.wait(60)
            suggest(study.ask())
        close_storage(storage)

    threads = [threading.Thread(target=choose) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    storage = open_storage(url, create=False)
    chosen = [config_of(trial.params) for trial in load_study(storage, "t").get_trials()]
    close_storage(storage)
    assert len(chosen) == len(SPACE.configs())
    assert set(chosen) == set(SPACE.configs())


@pytest.mark.parametrize("is_told_within", [False, True], ids=["at its end", "while it runs"])
def test_a_trial_that_was_taken_over_is_said_and_the_search_goes_on(
    url: str, is_told_within: bool
) -> None:
    storage = open_storage(url, create=False)
    study = load_study(storage, "t", sampler=make_sampler("random", SPACE, seed=0))
    said: list[str] = []

    def objective(trial: optuna.Trial) -> float:
        value = suggest(trial)
        close_trial(study, trial.number, reason="it was silent")  # as another worker would
        if is_told_within:
            trial.set_user_attr("sps", 1.0)
        return value

    with Heartbeat(study, worker="w", on_dead=lambda trial: None) as heartbeat:
        run_one(study, objective, heartbeat, said.append)
        run_one(study, suggest, heartbeat, said.append)
    states = [trial.state for trial in study.get_trials()]
    close_storage(storage)
    assert said == [
        "trial 0 was given to another worker meanwhile: what was measured of it here is kept"
    ]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_worker_that_comes_too_late_for_the_last_config_measures_none(url: str) -> None:
    few = SearchSpace((8, 16), (8,), (2,), (1,))
    storage = open_storage(url, create=False)
    study = load_study(storage, "t", sampler=make_sampler("random", few, seed=0))

    def objective(trial: optuna.Trial) -> float:
        for name, choices in few.choices().items():
            trial.suggest_categorical(name, choices)
        return 0.5

    with Heartbeat(study, worker="w", on_dead=lambda trial: None) as heartbeat:
        for _ in range(3):
            run_one(study, objective, heartbeat, lambda line: None)
    states, late = [trial.state for trial in study.get_trials()], study.trials[2]
    close_storage(storage)
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    assert (late.params, late.user_attrs["reason"]) == ({}, "every config of the space is taken")


def test_a_trial_that_a_fault_ends_is_told_as_failed(url: str) -> None:
    storage = open_storage(url, create=False)
    study = load_study(storage, "t", sampler=make_sampler("random", SPACE, seed=0))

    def objective(trial: optuna.Trial) -> float:
        raise ValueError("no such thing")

    with (
        pytest.raises(ValueError, match="no such thing"),
        Heartbeat(study, worker="w", on_dead=lambda trial: None) as heartbeat,
    ):
        run_one(study, objective, heartbeat, lambda line: None)
    states = [trial.state for trial in study.get_trials()]
    close_storage(storage)
    assert states == [TrialState.FAIL]
