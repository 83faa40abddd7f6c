"""The trial process seen from outside: what it may do, and how it is ended and classified."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tuner.trials import (
    is_gone,
    names,
    request,
    run,
    startup_code,
    wait_for_event,
    wait_until,
)
from tuner.classification import classify
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher, TrialRun
from tuner.outcome import (
    Completed,
    Crashed,
    Interrupted,
    Outcome,
    OutOfMemory,
    PredictedOutOfMemory,
    Pruned,
)
from tuner.protocol import Event

NOISE = """
import os, sys, threading, time

def chatter(events_fd):
    for line in (b"no event", b"[1]", b"null", b'"text"', b"\\xff", b'{"t": 1}', b'{"event": "x"}'):
        os.write(events_fd, line + b"\\n")
    while True:
        os.write(1, b'{"event": "done", "t": 0.0, "stopped": true}\\n')
        os.write(2, b"W0000 a library complains\\n")
        if "mine" not in sys.modules:
            try:
                import mine
            except ImportError:
                pass
        time.sleep(0.02)

if "tuner.child" in sys.orig_argv:
    events_fd = int(sys.orig_argv[sys.orig_argv.index("--events-fd") + 1])
    threading.Thread(target=chatter, args=(events_fd,), daemon=True).start()
"""
GRANDCHILD = """
import pathlib, subprocess, sys

if "tuner.child" in sys.orig_argv:
    sleeper = subprocess.Popen(["sleep", "600"])
    pathlib.Path(__file__).with_name("pid").write_text(str(sleeper.pid))
"""
PARENT = """
import json, sys, time
from pathlib import Path
from tuner.isolation import Child
from tuner.protocol import parse_request

child = Child(Path(sys.argv[1]), preload=None)
child.send(parse_request(json.loads(sys.argv[2])))
while (event := child.next_event(240)) is None or event.data.get("block") != 1:
    if child.has_ended:
        sys.exit("the trial ended before its second block")
print(child.pid, flush=True)
time.sleep(600)
"""
WITHOUT_JAX = """
import importlib, pkgutil, sys
import storage, tuner

for package in (tuner, storage):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith(("tuner.child", "tuner.ppo")):
            importlib.import_module(module.name)
heavy = {"jax", "jaxlib", "optax", "gymnax", "envs.base", "envs.stress", "envs.registry"}
print(sorted(heavy & set(sys.modules)), "tuner.cli" in sys.modules, "tuner.run" in sys.modules)
"""


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user stands: folders with names of ours, and a module of their own."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("envs", "storage", "tuner"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the user')")
    (folder / "mine.py").write_text("open('imported', 'w').close()")
    return folder


@pytest.fixture(scope="module")
def noisy(
    users_folder: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrialRun, Path]:
    """A trial in the user's folder under a library that prints all the time, and its log."""
    log_path = tmp_path_factory.mktemp("log") / "trial.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(users_folder)
        for name, value in startup_code(tmp_path_factory.mktemp("noise"), NOISE).items():
            patch.setenv(name, value)
        return run(request(cache_dir), log_path), log_path


def test_what_libraries_print_reaches_the_log_and_no_event(noisy: tuple[TrialRun, Path]) -> None:
    trial, log_path = noisy
    assert trial.outcome == Completed()
    expected = ["ready", "started", "compiled", "warm", "block", "measured", "done"]
    assert names(trial.events) == expected
    assert trial.events[-1].data["stopped"] is False
    log = log_path.read_text()
    assert "W0000 a library complains" in log
    assert '{"event": "done", "t": 0.0, "stopped": true}' in log


def test_folders_of_the_user_do_not_shadow_ours(noisy: tuple[TrialRun, Path]) -> None:
    trial, log_path = noisy
    assert trial.outcome == Completed()
    assert "of the user" not in log_path.read_text()


def test_a_module_of_the_user_can_be_imported(
    noisy: tuple[TrialRun, Path], users_folder: Path
) -> None:
    assert (users_folder / "imported").exists()


def test_the_deadline_kills_the_whole_process_group(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in startup_code(tmp_path / "startup", GRANDCHILD).items():
        monkeypatch.setenv(name, value)
    before = psutil.Process().children()  # a database server of other tests may be among them
    started = []

    def note(event: Event) -> None:
        started.extend(p for p in psutil.Process().children() if p not in before)

    asked = request(cache_dir, fault="hang")
    trial = run(asked, tmp_path / "trial.log", timeout_s=10, on_event=note)
    assert trial.outcome.status == "timeout"
    assert "after 10 s; raise --timeout" in (trial.outcome.reason or "")
    grandchild = int((tmp_path / "startup" / "pid").read_text())
    wait_until(lambda: is_gone(grandchild), within_s=60)
    assert not any(process.is_running() for process in started)


def test_a_trial_that_hangs_is_interrupted_when_the_budget_ends(
    tmp_path: Path, cache_dir: Path
) -> None:
    asked = request(cache_dir, fault="hang")
    trial = run(asked, tmp_path / "trial.log", give_up_at=time.monotonic() + 5)
    assert trial.outcome == Interrupted("the budget ended before the trial did")
    assert trial.ended - trial.requested < 120


def test_a_child_whose_parent_is_killed_ends_even_inside_a_compiled_loop(
    tmp_path: Path, cache_dir: Path
) -> None:
    asked = json.dumps(asdict(request(cache_dir, fault="hang")))
    command = [sys.executable, "-c", PARENT, str(tmp_path / "trial.log"), asked]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            # The loop is compiled in far less; from then on only the loop itself takes time.
            reached = child.cpu_times().user + 3
            wait_until(lambda: child.cpu_times().user > reached)
        finally:
            parent.kill()
        parent.wait()
        try:
            wait_until(lambda: is_gone(child.pid), within_s=60)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def test_a_killed_trial_is_a_crash_that_names_signal_and_phase(
    tmp_path: Path, cache_dir: Path
) -> None:
    trial = run(request(cache_dir, fault="kill"), tmp_path / "trial.log")
    assert isinstance(trial.outcome, Crashed)
    assert "SIGKILL while training; the host may be out of memory" in trial.outcome.reason
    assert [block.data["block"] for block in trial.blocks()] == [0, 1]


def test_an_outcome_of_the_observer_ends_the_trial_with_it(tmp_path: Path, cache_dir: Path) -> None:
    verdict = Pruned("too weak")

    def judge(event: Event) -> Outcome | None:
        return verdict if event.name == "block" else None

    # Long blocks: the child cannot be done by the time it is asked to stop.
    trial = run(request(cache_dir, env_steps=2**20), tmp_path / "trial.log", on_event=judge)
    assert trial.outcome is verdict
    assert len(trial.blocks()) == 1


def test_a_child_is_gone_once_its_observer_has_failed(tmp_path: Path, cache_dir: Path) -> None:
    def fail(event: Event) -> None:
        raise OSError("the disk is full")

    before = set(psutil.Process().children())
    with pytest.raises(OSError, match="the disk is full"):
        run(request(cache_dir), tmp_path / "trial.log", on_event=fail)
    assert set(psutil.Process().children()) <= before


def test_a_first_request_to_stop_lets_the_block_end(tmp_path: Path, cache_dir: Path) -> None:
    with Interrupts() as interrupts:  # the child sends this process a real SIGINT after block 1
        asked = request(cache_dir, fault="interrupt")
        trial = run(asked, tmp_path / "trial.log", interrupts=interrupts)
    assert trial.outcome == Interrupted("stopped on request while training")
    assert trial.events[-1].name == "block"


def test_a_second_request_to_stop_kills_the_trial(tmp_path: Path, cache_dir: Path) -> None:
    def stop_twice(event: Event) -> None:
        if event.name == "started":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    with Interrupts() as interrupts:
        trial = run(
            request(cache_dir), tmp_path / "trial.log", interrupts=interrupts, on_event=stop_twice
        )
    assert trial.outcome == Interrupted("killed at the second request to stop")
    assert trial.events[-1].name == "started"


def test_a_request_to_stop_during_evaluation_loses_nothing(tmp_path: Path, cache_dir: Path) -> None:
    def stop(event: Event) -> None:
        if event.name == "measured":
            os.kill(os.getpid(), signal.SIGTERM)

    with Interrupts() as interrupts:
        trial = run(
            request(cache_dir), tmp_path / "trial.log", interrupts=interrupts, on_event=stop
        )
    assert trial.outcome == Completed()


def test_a_launcher_hands_out_its_spare_with_the_log_renamed(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, preload=None)
    launcher.prepare()
    (spare,) = tmp_path.iterdir()
    child = launcher.take("trial-0001.log")
    try:
        assert not spare.exists()
        assert (tmp_path / "trial-0001.log").exists()
        assert wait_for_event(child, "ready").name == "ready"
    finally:
        child.end(grace_s=0)
    assert is_gone(child.pid)
    launcher.prepare()
    launcher.close()
    assert [path.name for path in tmp_path.iterdir()] == ["trial-0001.log"]


def test_the_command_line_process_never_imports_jax(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_JAX)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[] True True"


def happened(*named: str, **last: Any) -> list[Event]:
    """Make events of these names, the last with data."""
    events = [Event(name, float(t)) for t, name in enumerate(named)]
    return [*events[:-1], Event(named[-1], float(len(named)), last)]


OOM = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes."


@pytest.mark.parametrize(
    ("events", "returncode", "log", "kind", "words"),
    [
        (happened("ready", "started", "compiled", "warm", "block", "measured", "done"),
         0, "", Completed, ""),
        # A trial that is done is done, whatever its process does afterwards.
        (happened("ready", "started", "done"), -signal.SIGABRT, "bad_alloc", Completed, ""),
        (happened("compiled", "refused", predicted_bytes=2_500_000_000, limit_bytes=10**9),
         0, "", PredictedOutOfMemory,
         "needs 2.5 GB, but the gate allows 1 GB"),
        (happened("warm", "error", type="JaxRuntimeError", text=OOM),
         0, "", OutOfMemory, "JaxRuntimeError while training: RESOURCE_EXHAUSTED"),
        (happened("started", "error", type="MemoryError", text=""),
         0, "", OutOfMemory, "MemoryError"),
        (happened("started", "error", type="ValueError", text="a bug"),
         0, "", Crashed, "ValueError while compiling: a bug"),
        (happened("ready", "rejected", type="InvalidEnvParam", text="no such key"),
         0, "", Crashed, "no such key"),
        (happened("ready", "started", "compiled", "warm", "block"),
         -signal.SIGKILL, "", Crashed, "SIGKILL while training; the host may be out of memory"),
        (happened("ready", "started", "compiled"),
         -signal.SIGABRT, "terminate called after throwing 'std::bad_alloc'", OutOfMemory,
         "SIGABRT while warming up, out of memory by its log"),
        (happened("ready", "started"), -signal.SIGABRT, "assertion failed", Crashed,
         "SIGABRT while compiling"),
        (happened("ready", "started", "compiled", "warm", "block", "measured"),
         -signal.SIGSEGV, "", Crashed, "SIGSEGV while evaluating"),
        ([], 1, "unknown XLA_FLAGS", Crashed, "status 1 while starting"),
        (happened("ready"), 0, "", Crashed, "status 0 while starting"),
        (happened("ready", "started"), -signal.SIGABRT,
         "Thread creation via pthread_create() failed", Crashed, "it may have met a limit on"),
        # Real-time signals between SIGRTMIN and SIGRTMAX have no name of their own.
        (happened("ready"), -(signal.SIGRTMIN + 3), "", Crashed, "while starting"),
    ],
)  # fmt: skip
def test_every_way_to_end_is_classified(
    events: list[Event], returncode: int, log: str, kind: type, words: str
) -> None:
    outcome = classify(events, returncode, log)
    assert type(outcome) is kind
    assert words in (outcome.reason or "")


def test_a_spare_that_died_while_it_waited_is_replaced(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, preload=None)
    before = {process.pid for process in psutil.Process().children()}
    launcher.prepare()
    started = [p for p in psutil.Process().children() if p.pid not in before]
    (spare,) = [p for p in started if "--events-fd" in p.cmdline()]
    spare.kill()
    wait_until(lambda: is_gone(spare.pid), within_s=30)
    child = launcher.take("trial.log")
    try:
        assert child.pid != spare.pid
        assert wait_for_event(child, "ready").name == "ready"
    finally:
        child.end(0)
        launcher.close()
