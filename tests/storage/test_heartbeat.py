"""Workers that watch each other: real processes, killed and stopped."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from storage import beats, overview
from storage.beats import BEAT_ATTR, LONG_SILENCE_S, new_beat
from storage.database import HELD_S, sqlite_url
from storage.heartbeat import Heartbeat, _Silence, dead_trials, is_dead_here
from storage.recovery import close_trial, is_taken_over
from storage.studies import create_study, load_study, open_storage
from tests.storage.processes import FORK

optuna.logging.set_verbosity(optuna.logging.WARNING)
Opened = Callable[..., RDBStorage]
INTERVAL_S = 1.0
SLOW_S = 2.0
"""What a loaded machine may take for the calls that two intervals of waiting lead to."""


def _trial(beat: object = None) -> FrozenTrial:
    attrs = {} if beat is None else {BEAT_ATTR: beat}
    return create_trial(state=TrialState.RUNNING, system_attrs=attrs)


def _work(url: str, host: str | None, name: str, ends: Connection) -> None:
    """Start a trial and wait for the word to tell it; `host` is another machine's."""
    if host is not None:
        beats.machine = lambda: host  # type: ignore[assignment]
    study = load_study(open_storage(url, create=False), name)
    with Heartbeat(study, worker="b", on_dead=lambda trial: None, interval_s=INTERVAL_S) as heart:
        trial = study.ask()
        trial.suggest_categorical("num_envs", (8, 16, 32))
        heart.begin(trial.number)
        ends.send(trial.number)
        ends.recv()
        try:
            study.tell(trial, 0.5)
        except Exception as error:
            ends.send(is_taken_over(error))
        else:
            ends.send("told")


@contextmanager
def worker(
    url: str, host: str | None = None, name: str = "demo"
) -> Iterator[tuple[int, Connection]]:
    """A worker in a process of its own that has begun to measure trial 0, and the way to it."""
    ours, theirs = Pipe()
    process = FORK.Process(target=_work, args=(url, host, name, theirs))
    process.start()
    assert process.pid is not None
    try:
        assert ours.poll(60)
        assert ours.recv() == 0
        yield process.pid, ours
    finally:
        process.kill()
        process.join(60)


@pytest.fixture
def study(url: str, opened: Opened) -> optuna.Study:
    made = create_study(opened(url), "demo")
    made.enqueue_trial({"num_envs": 32})
    return made


@contextmanager
def watching(study: optuna.Study) -> Iterator[Heartbeat]:
    def close(trial: FrozenTrial) -> None:
        close_trial(study, trial.number, reason="its worker is dead")

    with Heartbeat(study, worker="a", on_dead=close, interval_s=INTERVAL_S) as heart:
        yield heart


def _wait_until_closed(study: optuna.Study, within_s: float) -> float:
    start = time.monotonic()
    while study.get_trials(deepcopy=False)[0].state == TrialState.RUNNING:
        assert time.monotonic() - start < within_s
        time.sleep(0.02)
    return time.monotonic() - start


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_the_trial_of_a_killed_worker_is_queued_within_two_intervals(
    study: optuna.Study, url: str, host: str | None
) -> None:
    with worker(url, host) as (pid, _), watching(study):
        # A living one is left alone; of this machine one look tells, of another only silence.
        time.sleep(INTERVAL_S if host is None else 3 * INTERVAL_S)
        assert [t.state.name for t in study.trials] == ["RUNNING"]
        os.kill(pid, signal.SIGKILL)
        _wait_until_closed(study, 2 * INTERVAL_S + SLOW_S)
    failed, queued = study.trials
    assert (failed.state.name, failed.user_attrs["reason"]) == ("FAIL", "its worker is dead")
    assert queued.state == TrialState.WAITING
    assert queued.system_attrs["fixed_params"] == {"num_envs": 32}


def test_a_worker_that_was_stopped_for_long_learns_that_its_trial_is_another_s(
    postgres_url: str, opened: Opened
) -> None:
    # Not in SQLite: stopped in the wrong millisecond it would hold the lock of the whole file.
    study = create_study(opened(postgres_url), "demo")
    study.enqueue_trial({"num_envs": 32})
    with worker(postgres_url) as (pid, ends), watching(study):
        os.kill(pid, signal.SIGSTOP)
        # In the wrong millisecond it holds its trial's row until the server ends its transaction.
        _wait_until_closed(study, HELD_S + 3 * INTERVAL_S + SLOW_S)
        os.kill(pid, signal.SIGCONT)
        ends.send("tell")
        assert ends.poll(30)
        assert ends.recv() is True
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]


@pytest.fixture
def local(tmp_path: Path, opened: Opened) -> optuna.Study:
    return create_study(opened(sqlite_url(tmp_path / "study.db")), "demo")


def test_a_trial_without_a_beat_is_dead_after_a_while(local: optuna.Study) -> None:
    local.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"kind": "probe"}))
    with watching(local):
        _wait_until_closed(local, 2 * INTERVAL_S + SLOW_S)
    assert [t.state.name for t in local.trials] == ["FAIL", "WAITING"]


def test_a_trial_is_ours_from_its_start_until_its_end(local: optuna.Study) -> None:
    """Also while the sampler thinks, between `ask` and `begin`; a queued one too."""
    local.enqueue_trial({"num_envs": 32})
    with watching(local) as heart:
        for number in (0, 1):
            trial = local.ask()
            time.sleep(2 * INTERVAL_S)
            beat = local.trials[number].system_attrs[BEAT_ATTR]
            assert (beat["worker"], beat["pid"]) == ("a", os.getpid())
            heart.begin(number)
            local.tell(trial, 0.5)
            heart.end()
    assert [t.state.name for t in local.trials] == ["COMPLETE", "COMPLETE"]


def test_while_the_database_is_away_nobody_grows_older(local: optuna.Study) -> None:
    local.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={"kind": "probe"}))
    faults: list[float] = []

    def lose(*_: object) -> None:
        if faults and time.monotonic() < faults[0]:
            raise sa.exc.OperationalError("SELECT", {}, Exception("the connection was lost"))

    backend = local._storage._backend  # type: ignore[attr-defined]
    sa.event.listen(backend.engine, "before_cursor_execute", lose)
    with watching(local):
        time.sleep(INTERVAL_S)
        back = time.monotonic() + 2 * INTERVAL_S
        faults.append(back)
        time.sleep(2 * INTERVAL_S)
        waited_s = _wait_until_closed(local, 3 * INTERVAL_S + SLOW_S)
    assert waited_s > INTERVAL_S


def test_what_closing_raises_is_told_at_the_next_trial_and_beats_go_on(local: optuna.Study) -> None:
    local.add_trial(create_trial(state=TrialState.RUNNING))

    def fail(trial: FrozenTrial) -> None:
        raise ZeroDivisionError(trial.number)

    with Heartbeat(local, worker="a", on_dead=fail, interval_s=INTERVAL_S) as heart:
        trial = local.ask()
        time.sleep(3 * INTERVAL_S)
        before = local.trials[1].system_attrs[BEAT_ATTR]["n"]
        time.sleep(INTERVAL_S)
        assert local.trials[1].system_attrs[BEAT_ATTR]["n"] > before
        with pytest.raises(ZeroDivisionError, match="0"):
            heart.begin(trial.number)


def test_silence_counts_in_looks_of_one_watcher() -> None:
    silence, now = _Silence(tick_s=5.0), 100.0
    first, second = ({"machine": "elsewhere", "n": n} for n in (1, 2))
    quiet = 3
    assert silence.dead({quiet: first, 4: first}, now) == []
    now += 3600  # the watcher was stopped, or its machine slept
    assert silence.dead({quiet: first, 4: first}, now) == []
    assert silence.dead({quiet: first, 4: second}, now + 5) == []
    assert silence.dead({quiet: first, 4: second}, now + 10) == [quiet]
    silence.forget()
    assert silence.dead({quiet: first}, now + 15) == []


@pytest.mark.parametrize("is_reaped", [True, False])
def test_a_process_of_this_machine_is_known_to_be_gone(is_reaped: bool) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        beat = {**new_beat("a", 1), "pid": process.pid}
        beat["pid_started"] = beats.start_ticks(process.pid)
        assert not is_dead_here(_trial(beat))
        assert is_dead_here(_trial({**beat, "pid_started": 1}))  # its number was given anew
        process.kill()
        if is_reaped:
            process.wait()
        while beats.start_ticks(process.pid) is not None:
            time.sleep(0.01)
        assert is_dead_here(_trial(beat))
        assert not is_dead_here(_trial({**beat, "machine": "elsewhere"}))
        assert not is_dead_here(_trial({**beat, "machine": None}))
    assert not is_dead_here(_trial())


def test_a_living_process_of_this_machine_is_not_dead_by_the_clock(study: optuna.Study) -> None:
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    beat = {**new_beat("b", 1), "utc": long_ago}  # the machine slept, or its clock was set
    study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={BEAT_ATTR: beat}))
    assert dead_trials(study) == []


def test_one_look_finds_those_that_have_been_silent_for_long(study: optuna.Study, url: str) -> None:
    now = datetime.now(UTC)
    for silent_s in (0, LONG_SILENCE_S - 10, LONG_SILENCE_S + 10):
        utc = (now - timedelta(seconds=silent_s)).isoformat(timespec="seconds")
        beat = {**new_beat("b", 1), "machine": "elsewhere", "utc": utc}
        study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={BEAT_ATTR: beat}))
    study.add_trial(create_trial(state=TrialState.RUNNING))
    old = create_trial(state=TrialState.RUNNING)
    old.datetime_start = datetime.now() - timedelta(seconds=LONG_SILENCE_S + 10)
    study.add_trial(old)
    assert [trial.number for trial in dead_trials(study)] == [3, 5]
    assert overview.dead_trials(url, "demo") == [3, 5]
