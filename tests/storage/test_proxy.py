"""Studies through Optuna's gRPC proxy, which is killed, stopped and started again."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from storage import proxy
from storage.database import connect, hide_password, parse_url, sqlite_url
from storage.errors import InvalidStorageUrl, ProxyUnavailable, StorageUnavailable
from storage.heartbeat import Heartbeat
from storage.patience import Patience
from storage.patient import PatientStorage, patient
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


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PatientStorage]:
    url = sqlite_url(tmp_path_factory.mktemp("proxied") / "study.db")
    storage = open_database(url, create=True)
    yield storage
    close_storage(storage)


@pytest.fixture(scope="module")
def server(database: PatientStorage) -> Iterator[Proxy]:
    """One for all tests, each with a study of its own: it takes seconds to start."""
    running = Proxy(database.url)
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
def direct(database: PatientStorage, request: pytest.FixtureRequest) -> optuna.Study:
    """The test's study in its database."""
    return create_study(database, request.node.name)


@pytest.fixture
def study(storage: ProxiedStorage, direct: optuna.Study) -> optuna.Study:
    """The test's study through the proxy."""
    return load_study(storage, direct.study_name)


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
    with pytest.raises(InvalidStorageUrl, match=r"pip install -e '\.\[grpc\]'"):
        open_storage("grpc://127.0.0.1:13000", create=False)


def test_a_proxy_that_is_restarted_is_waited_for(
    server: Proxy, storage: ProxiedStorage, study: optuna.Study
) -> None:
    """When a queued trial is taken, and in a trial, which the new proxy does not know."""
    said: list[str] = []
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
        first.set_user_attr("sps", 1.0)
        study.tell(first, 0.5)
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
    server: Proxy, direct: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "CALL_TIMEOUT_S", 5)
    impatient = ProxiedStorage(server.url)
    with patient(impatient, _waiting(impatient)):  # a busy machine may be silent, too
        study = load_study(impatient, direct.study_name)
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StorageUnavailable, match=r"must answer, but got deadline_exceed"):
            study.get_trials()
        threading.Timer(6, os.kill, (server.process.pid, signal.SIGCONT)).start()
        with patient(impatient, _waiting(impatient)):
            assert study.get_trials() == []
    finally:
        os.kill(server.process.pid, signal.SIGCONT)  # it serves the other tests
    close_storage(impatient)


def test_workers_behind_a_proxy_watch_each_other(server: Proxy, study: optuna.Study) -> None:
    study.enqueue_trial({"num_envs": 32})

    def close(trial: FrozenTrial) -> None:
        close_trial(study, trial.number, reason="its worker is dead")

    with (
        worker(server.url, "elsewhere", study.study_name) as (pid, _),
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
    study: optuna.Study, direct: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock reaches through a proxy: whose entry is the later one takes it back."""
    study.enqueue_trial({"num_envs": 8})
    study.ask()
    add = optuna.Study.add_trial

    def add_after_another(self: optuna.Study, trial: FrozenTrial) -> None:
        monkeypatch.setattr(optuna.Study, "add_trial", add)
        queue_again(direct, 0)
        add(self, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", add_after_another)
    queue_again(study, 0)
    assert [t.state.name for t in study.trials] == ["RUNNING", "WAITING", "FAIL"]
