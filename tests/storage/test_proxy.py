"""Studies through Optuna's gRPC proxy, which is killed, stopped and started again."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from storage import proxy
from storage.database import connect, hide_password, parse_url, sqlite_url
from storage.errors import InvalidStorageUrl, ProxyUnavailable, StorageUnavailable
from storage.heartbeat import Heartbeat
from storage.patience import Patience
from storage.patient import patient
from storage.proxy import ProxiedStorage
from storage.recovery import close_trial, queue_again
from storage.studies import (
    close_storage,
    create_study,
    load_study,
    open_database,
    open_storage,
    set_study_fact,
    study_facts,
)
from tests.storage.proxies import Proxy
from tests.storage.test_heartbeat import INTERVAL_S, SLOW_S, worker

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """The address of an SQLite file with a study."""
    url = sqlite_url(tmp_path / "study.db")
    storage = open_database(url, create=True)
    create_study(storage, "demo")
    yield url
    close_storage(storage)


@pytest.fixture
def server(database: str) -> Iterator[Proxy]:
    running = Proxy(database)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def storage(server: Proxy) -> Iterator[ProxiedStorage]:
    opened = open_storage(server.url, create=False)
    assert isinstance(opened, ProxiedStorage)
    yield opened
    close_storage(opened)


@pytest.fixture
def study(storage: ProxiedStorage) -> optuna.Study:
    return load_study(storage, "demo")


def _waiting(storage: ProxiedStorage, said: list[str] | None = None) -> Patience:
    return Patience(storage.url, say=(said if said is not None else []).append, limit_s=60)


def test_an_address_of_a_proxy_has_a_host_and_a_port() -> None:
    assert hide_password("grpc://there:13000") == "grpc://there:13000"
    for url in ("grpc://", "grpc://user:secret@there:13000", "grpc://there/database"):
        with pytest.raises(InvalidStorageUrl, match=r"must be grpc://HOST:PORT") as refused:
            parse_url(url)
        assert "secret" not in str(refused.value)
    with pytest.raises(InvalidStorageUrl, match=r"must be a database here, but got grpc://there"):
        connect("grpc://there:13000")


def test_without_grpcio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(InvalidStorageUrl, match=r"install tuner\[grpc\]"):
        open_storage("grpc://127.0.0.1:13000", create=False)


def test_a_proxy_that_is_restarted_is_waited_for(server: Proxy, storage: ProxiedStorage) -> None:
    """At every call of a trial; nothing is done twice."""
    said: list[str] = []
    study = load_study(storage, "demo")
    set_study_fact(study, "device", "cpu")
    study.enqueue_trial({"num_envs": 8})

    def restart() -> None:
        server.stop()
        threading.Timer(0.5, server.start).start()

    with patient(storage, _waiting(storage, said)):
        restart()
        first = study.ask()
        restart()
        first.suggest_categorical("num_envs", (8, 16))
        restart()
        first.set_user_attr("sps", 1.0)
        study.tell(first, 0.5)
        restart()
        second = study.ask()
        study.tell(second, state=TrialState.FAIL)
        assert study_facts(study) == {"device": "cpu"}
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL"]
    assert (study.trials[0].params, study.trials[0].value) == ({"num_envs": 8}, 0.5)
    assert said[0].startswith("the database does not answer (unavailable: ")
    assert said[1].startswith("the database answers again after")


def test_a_call_whose_answer_was_lost_is_not_made_twice(
    study: optuna.Study, storage: ProxiedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the calls that may not be repeated is carried out, and then seems to have failed."""
    lost: list[str] = []

    def lose(name: str) -> None:
        method = getattr(proxy.GrpcStorageProxy, name)

        def call(self: ProxiedStorage, *args: object) -> object:
            result = method(self, *args)
            if name not in lost:
                lost.append(name)
                raise ProxyUnavailable("away", fault="away")
            return result

        monkeypatch.setattr(proxy.GrpcStorageProxy, name, call)

    with patient(storage, _waiting(storage)):
        lose("create_new_trial")
        trial = study.ask()
        assert trial.number == 0
        lose("set_trial_state_values")
        study.tell(trial, 0.5)
        assert [t.state.name for t in study.trials] == ["COMPLETE"]
        lost.clear()
        study.enqueue_trial({"num_envs": 8})
        assert lost == ["create_new_trial"]
        # Who started it, we or another, cannot be told: it is left to the heartbeats.
        assert study.ask().number == 2
    assert [t.state.name for t in study.trials] == ["COMPLETE", "RUNNING", "RUNNING"]


def test_a_proxy_that_falls_silent_counts_as_away(
    server: Proxy, storage: ProxiedStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "CALL_TIMEOUT_S", 1)
    impatient = ProxiedStorage(server.url)
    study = load_study(impatient, "demo")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    with pytest.raises(StorageUnavailable, match=r"grpc://.* must answer, but got deadline_exceed"):
        study.get_trials()
    with patient(impatient, _waiting(impatient)):
        threading.Timer(1.5, os.kill, (server.process.pid, signal.SIGCONT)).start()
        assert study.get_trials() == []
    close_storage(impatient)


def test_workers_behind_a_proxy_watch_each_other(
    server: Proxy, study: optuna.Study, database: str
) -> None:
    study.enqueue_trial({"num_envs": 32})

    def close(trial: FrozenTrial) -> None:
        close_trial(study, trial.number, reason="its worker is dead")

    with (
        worker(server.url, "elsewhere") as (pid, _),
        Heartbeat(study, worker="a", on_dead=close, interval_s=INTERVAL_S),
    ):
        time.sleep(3 * INTERVAL_S)
        assert [t.state.name for t in study.trials] == ["RUNNING"]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 2 * INTERVAL_S + SLOW_S
        while study.trials[0].state == TrialState.RUNNING:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]


def test_two_that_queue_a_trial_at_once_queue_it_once(
    study: optuna.Study, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock reaches through a proxy: whose entry is the later one takes it back."""
    study.enqueue_trial({"num_envs": 8})
    study.ask()
    direct = open_storage(database, create=False)
    other: Callable[[], None] = lambda: queue_again(load_study(direct, "demo"), 0)  # noqa: E731
    add = optuna.Study.add_trial

    def add_after_another(self: optuna.Study, trial: FrozenTrial) -> None:
        monkeypatch.setattr(optuna.Study, "add_trial", add)
        other()
        add(self, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", add_after_another)
    queue_again(study, 0)
    close_storage(direct)
    assert [t.state.name for t in study.trials] == ["RUNNING", "WAITING", "FAIL"]
