"""A trial process that dies, hangs, floods, leaks or leaves others behind: one measurement each.

In place of the trial runs a program of a few lines, so that every fault is real and quick.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import indent

import psutil
import pytest
from killer import RUN_VARIABLE, orphans

from tests import BENCHMARKS
from tests.faults.children import LEAVE, TRAIN, die_once, stand_in
from tests.tuner.studies import SMALL, Studies
from tests.tuner.trials import names, request, run, wait_until
from tuner import isolation
from tuner.bench import Bench
from tuner.devices.cpu import CpuDevice
from tuner.interrupts import Interrupts
from tuner.isolation import CHILD_VARIABLE, Child, Launcher, TrialRun
from tuner.outcome import Completed, Crashed, Interrupted, OutOfMemory, TimedOut
from tuner.protocol import PeaksRequest
from tuner.trial_log import MOST_BYTES
from tuner.warden import MARK, end_marked, marked

FOREVER = "time.sleep(600)\n"
UNPRIVILEGED = """
if os.getuid() == 0:
    os.setuid(65534)  # root's processes are not counted
resource.setrlimit(resource.RLIMIT_NPROC, (40, 40))
"""
GARBAGE = r"""
for piece in (b"\x00\xff\xfe", b"\n\n\n", b'{"event": "block", "t": 1}\n', b"[" * 100_000 + b"\n",
              b'{"event": [], "t": 0}\n', b'{"event": "done", "t": NaN, "stopped": false}\n',
              b"9" * 5_000 + b"\n", b"x" * 3_000_000 + b"\n", b'{"event": "warm", "t"', b"\n"):
    while piece:
        piece = piece[os.write(FD, piece):]
"""
REFUSED = """
import os, resource, sys
from pathlib import Path
import tuner.isolation
from tuner.devices.cpu import CpuDevice
from tuner.devices.monitor import GPUMonitor
from tuner.errors import TunerError

tuner.isolation._STARTING_S = 0.3
folder = Path(sys.argv[1])
monitor = GPUMonitor(device=CpuDevice())
if os.getuid() == 0:
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
launcher = tuner.isolation.Launcher(folder, preload=None)
launcher.prepare()
try:
    launcher.take("trial.log")
except TunerError as error:
    print(error)
monitor.start_monitoring()
print(monitor.failure)
"""


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """What every process that a test starts has in its environment."""
    token = secrets.token_hex(8)
    monkeypatch.setenv(RUN_VARIABLE, token)
    return token


class Trial:
    """Runs one trial of a program, and sees that nothing of it is left."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, token: str) -> None:
        self.log = folder / "trial.log"
        self._folder, self._patch, self._token = folder, patch, token

    def __call__(self, code: str, *, timeout_s: float = 60.0) -> TrialRun:
        stand_in(self._folder, self._patch, code)
        trial = run(request(self._folder), self.log, timeout_s=timeout_s)
        # Everything has ended when the trial has: nobody has to wait for it.
        assert orphans(RUN_VARIABLE, self._token, within_s=0.2) == []
        return trial


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> Trial:
    return Trial(tmp_path, monkeypatch, token)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_trial_that_dies_by_a_signal_is_a_crash_that_names_it(
    trial: Trial, number: signal.Signals
) -> None:
    ended = trial(f"os.kill(os.getpid(), {int(number)})\n" + FOREVER)
    assert isinstance(ended.outcome, Crashed)
    assert f"ended by {number.name} while starting" in ended.outcome.reason


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), signal.SIGSTOP)\n",
        "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n" + FOREVER,
        LEAVE + "os.kill(os.getpid(), signal.SIGSTOP)\n",
        "ctypes.PyDLL(None).sleep(600)\n",  # holds the interpreter's lock, as a library may
        "while True: os.write(FD, b'x' * 65536)\n",
        "while True: os.write(FD, b'\\n' * 65536)\n",
    ],
    ids=["stopped", "deaf", "stopped-with-children", "locked", "flood", "flood-of-lines"],
)
def test_the_deadline_ends_whatever_a_trial_is_doing(trial: Trial, code: str) -> None:
    before = psutil.Process().memory_info().rss
    ended = trial(code, timeout_s=1.0)
    assert isinstance(ended.outcome, TimedOut)
    assert ended.ended - ended.requested < 30
    assert psutil.Process().memory_info().rss - before < 100e6


def test_what_a_trial_leaves_behind_ends_with_it(trial: Trial) -> None:
    ended = trial(LEAVE + TRAIN + "os._exit(0)\n")
    assert ended.outcome == Completed()


def test_garbage_among_the_events_is_passed_over(trial: Trial) -> None:
    ended = trial(GARBAGE + TRAIN + GARBAGE + "os._exit(0)\n")
    assert ended.outcome == Completed()
    assert names(ended.events)[1:] == ["started", "compiled", "warm", "block", "measured", "done"]
    assert len(ended.blocks()) == 8


def test_a_trial_that_is_silent_in_the_end_is_a_crash(trial: Trial) -> None:
    ended = trial('os.write(FD, b\'{"event": "do\'); os._exit(0)\n')
    assert ended.outcome == Crashed("the process ended with status 0 while starting")


def test_a_trial_that_closes_its_pipe_and_lives_on_is_told_from_one_that_was_killed(
    trial: Trial,
) -> None:
    ended = trial("os.close(FD)\n" + FOREVER)
    assert ended.outcome == Crashed(
        "the process closed its pipe while starting and lived on; it was killed"
    )


def test_a_flood_of_output_neither_fills_the_disk_nor_holds_up_the_trial(trial: Trial) -> None:
    flood = "for _ in range(40): os.write(1, os.urandom(2**20)); time.sleep(0.02)\n"
    ended = trial(flood + TRAIN + "os._exit(0)\n")
    assert ended.outcome == Completed()
    assert trial.log.stat().st_size <= MOST_BYTES
    assert b"bytes are left out here: a log is cut at" in trial.log.read_bytes()


def test_threads_up_to_the_limit_are_a_crash_that_says_so(trial: Trial) -> None:
    leak = (
        "try:\n"
        "    while True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "except RuntimeError as error: channel.fail('error', error)\n"
        "os._exit(0)\n"
    )
    ended = trial(UNPRIVILEGED + leak)
    assert isinstance(ended.outcome, Crashed)
    assert "can't start new thread; it may have met a limit" in ended.outcome.reason


def test_memory_up_to_the_limit_is_out_of_memory(trial: Trial) -> None:
    leak = (
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(bytes(2**26))\n"
        "except MemoryError as error: channel.fail('error', error)\n"
        "os._exit(0)\n"
    )
    assert isinstance(trial(leak).outcome, OutOfMemory)


def test_a_system_that_refuses_processes_and_threads_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    command = [sys.executable, "-c", REFUSED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    refused, unwatched = done.stdout.splitlines()
    assert refused.startswith("a process must start within 0.3 s, but got: Resource temporarily")
    assert unwatched.startswith("sampling could not be started: can't start new thread")


def test_the_last_words_after_a_flood_still_explain_a_crash(trial: Trial) -> None:
    flood = "os.write(1, b'y' * 2**25); time.sleep(1)\n"
    ended = trial(flood + "os.write(2, b'std::bad_alloc'); os.abort()\n")
    assert isinstance(ended.outcome, OutOfMemory)
    assert trial.log.stat().st_size <= MOST_BYTES


def test_a_trial_whose_job_is_stopped_lets_its_parent_decide(trial: Trial) -> None:
    # A scheduler signals every process of a job: the trial goes on, and its parent counts.
    signals = "for n in (1, 2, 15): os.kill(os.getpid(), n)\n"
    assert trial(signals + TRAIN + "os._exit(0)\n").outcome == Completed()


def test_programs_that_a_trial_starts_can_be_stopped(trial: Trial) -> None:
    code = "asleep = subprocess.Popen(['sleep', '600'])\nasleep.terminate()\nasleep.wait(20)\n"
    assert trial(code + TRAIN + "os._exit(0)\n").outcome == Completed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_trial_that_is_killed_with_a_stopping_study_is_interrupted_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    both = (
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        f"channel.emit('started', platform='cpu', device_kind='none')\n"
        "os.kill(arguments.parent, signal.SIGTERM)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
    )
    stand_in(tmp_path, monkeypatch, both)
    with Interrupts() as interrupts:
        ended = run(request(tmp_path), tmp_path / "trial.log", interrupts=interrupts)
    assert isinstance(ended.outcome, Interrupted)


def test_a_mark_is_not_mistaken_for_a_longer_one(token: str) -> None:
    mark = f"{token}.1"
    environments = [{**os.environ, MARK: mark}, {**os.environ, MARK: f"{mark}0"}]
    processes = [subprocess.Popen(["sleep", "60"], env=each) for each in environments]
    deadline = time.monotonic() + 20
    while len(list(marked(f"{token}."))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        end_marked(mark)
        assert processes[0].wait(10) == -signal.SIGKILL
        assert processes[1].poll() is None
        end_marked(f"{token}.")
        assert processes[1].wait(10) == -signal.SIGKILL
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_child_that_leaves_a_long_request_unread_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_READING_S", 1.0)
    stand_in(tmp_path, monkeypatch, "")
    child = Child(tmp_path / "trial.log", preload=None)
    assert child.next_event(60.0) is not None  # it is ready
    os.kill(child.pid, signal.SIGSTOP)
    child.send({"kind": "x" * 2**21})
    wait_until(lambda: child.next_event(0.1) is None and child.has_ended, within_s=20)
    assert child.end(0) == -signal.SIGKILL


def test_a_question_is_asked_once_more_after_the_death_of_its_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, die_once(tmp_path) + "channel.emit('peaks', reason='none')\n")
    said: list[str] = []
    launcher = Launcher(tmp_path, preload=None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the device's lock is
    bench = Bench(CpuDevice(), launcher, Interrupts(), timeout_s=60.0, say=said.append)
    with bench:
        answer = bench.ask(PeaksRequest(cache_dir=str(tmp_path)))
    assert answer.data["reason"] == "none"
    assert [line.split(";")[0] for line in said] == ["the child process must answer, but ended"]


def test_a_baseline_whose_process_is_killed_is_measured_once_more(
    tmp_path: Path, cache_dir: Path
) -> None:
    program = tmp_path / "child.py"
    program.write_text(
        f"import os, sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "import stand_in_child\ntrain = stand_in_child.train\n"
        f"def mortal(request, channel):\n{indent(die_once(tmp_path), '    ')}"
        "    train(request, channel)\n"
        "stand_in_child.train = mortal\nstand_in_child.main()\n"
    )
    studies = Studies(tmp_path, cache_dir)
    arguments = studies.start_arguments("t", *SMALL, "--trials", "1")
    with studies.begin(*arguments, variables={CHILD_VARIABLE: str(program)}) as process:
        _, told = process.communicate(timeout=280)
    assert process.returncode == 7, told
    assert "crashed (the process ended by SIGKILL while starting; the host may be out" in told
    assert told.count("measured once more") == 1
    assert [r.status for r in studies.records("t")] == ["success"] * 3
