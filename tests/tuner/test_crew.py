"""The leader's workers as processes: real ones, that wait for a study's calibration meanwhile."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from storage.database import sqlite_url
from storage.studies import close_storage, create_study, open_storage, set_study_fact
from tuner import crew as crew_module
from tuner.config import StudyConfig
from tuner.crew import Crew
from tuner.devices.cpu import own_cores
from tuner.interrupts import SLOT_VARIABLE, Interrupts
from tuner.placement import Place

PATIENCE_S = 60


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """The arguments of a worker of a study that is not calibrated."""
    runs = tmp_path / "runs"
    (runs / "t").mkdir(parents=True)
    storage = open_storage(sqlite_url(runs / "t/study.db"), create=True)
    study = create_study(storage, "t")
    set_study_fact(study, "config", StudyConfig(runs_dir=runs).resolved("cpu").as_data())
    close_storage(storage)
    return ["t", "--runs-dir", str(runs)]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "worker" in p.cmdline()]


def test_a_worker_that_is_killed_is_replaced_once(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    cores = own_cores()
    place = Place(cores=cores[-1:])
    with Crew([place], arguments, os.environ, interrupts=Interrupts(), say=said.append) as crew:
        crew.start(None)
        for deaths in (1, 2):
            wait_until(lambda: bool(workers()))
            (worker,) = workers()
            assert worker.cpu_affinity() == list(cores[-1:])
            worker.send_signal(signal.SIGKILL)
            wait_until(lambda deaths=deaths: len(said) == deaths)  # type: ignore[misc]
    assert own_cores() == cores
    assert said == [
        "worker 1 died (signal 9): started again",
        "worker 1 died (signal 9): not started a second time",
    ]


def test_a_request_to_stop_reaches_workers_and_their_lines_have_their_number(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    interrupts, told = Interrupts(), ""
    crew = Crew([Place()] * 2, arguments, os.environ, interrupts=interrupts, say=lambda line: None)
    with crew:
        crew.start(5.0)
        while told.count("waiting for t to be calibrated") < 2:
            time.sleep(0.1)
            told += capfd.readouterr().err
        for worker in workers():  # a signal to the whole group does not count beside the order
            worker.send_signal(signal.SIGTERM)
        interrupts.count = 1
    told += capfd.readouterr().err
    for number in (1, 2):
        assert f"[{number}] worker of t ended: stopped on request\n" in told
    assert all(line.startswith("[") for line in told.splitlines())


def test_a_worker_ends_at_once_when_its_leader_is_gone(arguments: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "tuner", "worker", *arguments],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, SLOT_VARIABLE: "3"},
    ) as worker:
        assert worker.stdin is not None
        assert worker.stderr is not None
        assert worker.stderr.readline().startswith("[3] waiting for t")
        worker.stdin.close()
        assert worker.wait(PATIENCE_S) == 5


def test_a_worker_that_is_stopped_does_not_hold_up_a_leader_that_ends(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "GRACE_S", 0.5)
    crew = Crew([Place()], arguments, os.environ, interrupts=Interrupts(), say=lambda line: None)

    def fail_beside_a_stopped_worker() -> None:
        with crew:
            crew.start(None)
            wait_until(lambda: bool(workers()))
            workers()[0].suspend()
            raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        fail_beside_a_stopped_worker()
    assert workers() == []


def test_a_worker_of_no_study_is_refused_and_not_replaced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    arguments = ["none", "--runs-dir", str(tmp_path)]
    with Crew([Place()], arguments, os.environ, interrupts=Interrupts(), say=said.append) as crew:
        crew.start(None)
    assert said == []
    assert capfd.readouterr().err.startswith("[1] tuner: ")


def test_a_leader_that_shows_a_view_says_its_workers_lines(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    arguments = ["none", "--runs-dir", str(tmp_path)]
    with Crew(
        [Place()],
        arguments,
        os.environ,
        interrupts=Interrupts(),
        say=said.append,
        says_their_lines=True,
    ) as crew:
        crew.start(None)
    assert [line[:11] for line in said] == ["[1] tuner: "]
    assert capfd.readouterr().err == ""


def test_a_worker_that_is_stopped_does_not_hold_up_the_end_of_a_search(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "GRACE_S", 0.5)
    monkeypatch.setattr(crew_module, "LATEST_S", 0.5)
    monkeypatch.setattr(crew_module, "LOOK_S", 0.1)
    said: list[str] = []
    busy = [True, True, False]
    crew = Crew([Place()], arguments, os.environ, interrupts=Interrupts(), say=said.append)
    with crew:
        crew.start(None)
        wait_until(lambda: bool(workers()))
        (worker,) = workers()
        worker.suspend()
        crew.wait(lambda: busy.pop(0) if len(busy) > 1 else busy[0])
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    assert said == ["worker 1 did not end 0.5 s after the last trial: ended now"]
