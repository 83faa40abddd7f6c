"""The process that runs trials is killed, stopped, suspended or asked to stop; its output closed.

A script stands for the study: it runs one trial of a program of a few lines, with a spare beside.
"""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from killer import RUN_VARIABLE, orphans, role_of

from tests.faults.children import LEAVE, TRAIN, stand_in
from tests.tuner.trials import is_gone, wait_until
from tuner.interrupts import EXIT_INTERRUPTED, Interrupts

PARENT = """
import sys
from pathlib import Path
import tuner.standstill
from tests.tuner.trials import TINY, request
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher, run_trial
from tuner.measurement import Roof, measure
from tuner.space import HardwareConfig

tuner.standstill.STANDSTILL_S = 1.0
folder = Path(sys.argv[1])
launcher = Launcher(folder, preload=None)

def tell(event):
    if event.name == "warm":
        launcher.prepare()
    print(event.name, flush=True)

with Interrupts() as interrupts:
    ended = run_trial(launcher.take("trial.log"), request(folder), timeout_s=float(sys.argv[2]),
                      interrupts=interrupts, on_event=tell)
launcher.close()
measured = measure(ended, config=HardwareConfig(**TINY), trial=1, replicate=0, watch=None,
                   roof=Roof(None, "float32"))
print(ended.outcome.status, measured.record.contaminated, flush=True)
"""
WAITING = "channel.emit('warm', seconds=0.0)\n"
LATE = """
emit = channel.emit
def emit_late(name, **data):
    if name == "warm":
        time.sleep(5)
    emit(name, **data)
channel.emit = emit_late
"""
STATES = {
    "asleep": "time.sleep(600)\n",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)\n",
    "locked": "ctypes.PyDLL(None).sleep(600)\n",  # no thread of Python's runs in it
    "deaf": "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\ntime.sleep(600)\n",
}


class Study:
    """The script at work on a program, in a session of its own."""

    def __init__(self, process: subprocess.Popen[str], token: str) -> None:
        self.process, self._token = process, token

    def wait_for(self, event: str) -> None:
        """Read what it tells up to an event."""
        assert self.process.stdout is not None
        assert any(line.strip() == event for line in self.process.stdout), event

    def family(self) -> list[psutil.Process]:
        """Return it and all that it has started."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def role(self, name: str) -> psutil.Process:
        """Return its process of that role."""
        return next(p for p in self.family()[1:] if role_of(p) == name)

    def leaves_nothing(self) -> bool:
        """Whether all that it has started ends within a few seconds of its own end."""
        return orphans(RUN_VARIABLE, self._token) == []


@pytest.fixture(autouse=True)
def hang_up_is_heard() -> Iterator[None]:
    """Under `nohup` it would be ignored here and by all that is started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Begin"]:
    token = secrets.token_hex(8)
    monkeypatch.setenv(RUN_VARIABLE, token)
    yield Begin(tmp_path, monkeypatch, token)
    for process in orphans(RUN_VARIABLE, token, within_s=0):
        if process.pid != os.getpid():
            process.kill()


class Begin:
    """Begins studies."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, token: str) -> None:
        self._folder, self._patch, self._token = folder, patch, token

    @contextmanager
    def __call__(self, code: str, *, timeout_s: float = 120.0) -> Iterator[Study]:
        stand_in(self._folder, self._patch, code)
        command = [sys.executable, "-c", PARENT, str(self._folder), str(timeout_s)]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        ) as process:
            try:
                yield Study(process, self._token)
            finally:
                process.kill()


@pytest.mark.parametrize("state", STATES)
def test_nothing_outlives_a_parent_that_is_killed(studies: Begin, state: str) -> None:
    with studies(LEAVE + WAITING + STATES[state]) as study:
        study.wait_for("warm")
        assert len(study.family()) >= 6  # with the warden, the spare and what the trial left
        study.process.kill()
    assert study.leaves_nothing()


@pytest.mark.parametrize("state", ["stopped", "locked"])
def test_trial_and_spare_end_with_their_parent_even_without_a_warden(
    studies: Begin, state: str
) -> None:
    with studies(WAITING + STATES[state]) as study:
        study.wait_for("warm")
        study.role("warden").kill()
        study.process.kill()
    assert study.leaves_nothing()


@pytest.mark.parametrize(
    "seeds", [range(4), pytest.param(range(4, 44), marks=pytest.mark.long)], ids=["few", "many"]
)
@pytest.mark.timeout(600)
def test_a_parent_killed_at_any_moment_leaves_nothing(studies: Begin, seeds: range) -> None:
    for seed in seeds:
        with studies(LEAVE + WAITING + TRAIN + "os._exit(0)\n") as study:
            # From before the first process is started until after the trial has ended.
            time.sleep(random.Random(seed).uniform(0.1, 2.0))
            study.process.kill()
        assert study.leaves_nothing(), seed


def test_a_study_that_was_stopped_for_longer_than_the_time_out_blames_no_config(
    studies: Begin,
) -> None:
    # As when the machine is suspended: everything stands still and goes on together.
    with studies("os.environ['STAND_IN_TRIAL_S'] = '6'\n" + TRAIN, timeout_s=12.0) as study:
        study.wait_for("block")
        time.sleep(0.5)  # it has told of the block and waits again: where a process stands still
        family = study.family()
        for process in family:
            process.suspend()
        time.sleep(13)
        for process in reversed(family):
            process.resume()
        told, _ = study.process.communicate(timeout=60)
    last = told.splitlines()[-1]
    assert last.startswith("success the machine was suspended, or this process was stopped, for")
    assert study.leaves_nothing()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_job_whose_every_process_is_signalled_ends_its_block(
    studies: Begin, number: signal.Signals
) -> None:
    with studies("os.environ['STAND_IN_TRIAL_S'] = '4'\n" + TRAIN) as study:
        study.wait_for("block")
        for process in study.family():
            with suppress(psutil.NoSuchProcess):  # the first signal may have ended the others
                process.send_signal(number)
        told, said = study.process.communicate(timeout=60)
    assert told.splitlines()[-1] == "interrupted None"
    assert "the running trial ends after its block" in said
    assert study.leaves_nothing()


def test_the_third_request_to_stop_ends_everything_at_once(studies: Begin) -> None:
    # The first two come while nothing can be done about them: the parent stands still.
    with studies(LEAVE + WAITING + STATES["locked"]) as study:
        study.wait_for("warm")
        study.process.send_signal(signal.SIGSTOP)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            study.process.send_signal(number)
        study.process.send_signal(signal.SIGCONT)
        assert study.process.wait(20) == EXIT_INTERRUPTED
    assert study.leaves_nothing()


def test_a_warden_that_was_killed_is_replaced(studies: Begin) -> None:
    # The next process is begun when the trial is warm: not before the warden is dead.
    with studies("os.environ['STAND_IN_TRIAL_S'] = '30'\n" + LATE + TRAIN) as study:
        study.wait_for("started")
        warden = study.role("warden")
        warden.kill()
        study.wait_for("warm")
        wait_until(lambda: is_gone(warden.pid), within_s=20)
        wait_until(lambda: "warden" in map(role_of, study.family()), within_s=20)
        study.process.kill()
    assert study.leaves_nothing()


def test_signals_that_are_ignored_from_the_start_stay_ignored() -> None:
    # As behind `&` in a script, and under `nohup`.
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.count == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.count == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_request_to_stop_whose_terminal_is_gone_is_heard() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    kept = os.dup(2)
    os.dup2(write_end, 2)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupts.count == 1
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write_end)


@pytest.mark.parametrize(
    ("closed", "words", "code"),
    [("stdout", ("list", "--json"), 0), ("stderr", ("status", "none"), 2)],
)
def test_a_reader_that_leaves_changes_nothing(
    tmp_path: Path, closed: str, words: tuple[str, ...], code: int
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, closed: write_end}
    command = [sys.executable, "-m", "tuner", *words]
    done = subprocess.run(command, cwd=tmp_path, text=True, timeout=120, check=False, **streams)
    os.close(write_end)
    assert done.returncode == code
    assert not done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    "seeds", [range(4), pytest.param(range(4, 34), marks=pytest.mark.long)], ids=["few", "many"]
)
def test_ctrl_c_while_a_command_begins_is_no_fault(tmp_path: Path, seeds: range) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tuner", "status", "none"]
    for seed in seeds:
        with subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            # What comes before is Python's own beginning.
            assert process.stderr is not None
            assert any("tuner.interrupts" in line for line in process.stderr)
            time.sleep(random.Random(seed).uniform(0.0, 1.5))
            process.send_signal(signal.SIGINT)
            said = "".join(line for line in process.stderr if "import time:" not in line)
            process.wait(60)
        assert "Traceback" not in said, (seed, said)
        # By its own code, by the signal itself, or because the command had ended before.
        assert process.returncode in (EXIT_INTERRUPTED, -signal.SIGINT, 2), (seed, said)
