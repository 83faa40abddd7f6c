"""The trial process seen from outside: start, ask, watch, time out, kill, classify.

A trial runs in a process of its own because an exhausted device, an abort in a library or a hang
cannot be undone inside a process; here is everything that keeps such a fault from reaching the
study. Nothing here knows what a trial measures.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.address import without_secrets
from tuner.interrupts import Interrupts
from tuner.outcome import (
    Completed,
    Crashed,
    Interrupted,
    Outcome,
    OutOfMemory,
    PredictedOutOfMemory,
    TimedOut,
)
from tuner.protocol import STOP, Event, Request, TrainRequest, parse_event, request_line

GRACE_S = 5.0
"""How long a child may take to end by itself once it has no more to do."""

_POLL_S = 0.1
_PHASES = {
    "ready": "starting",
    "started": "compiling",
    "compiled": "warming up",
    "warm": "training",
    "block": "training",
    "measured": "evaluating",
    "done": "ending",
}
_OOM_TEXTS = (
    "RESOURCE_EXHAUSTED",
    "Out of memory",
    "bad_alloc",
    "MemoryError",
    "Cannot allocate memory",
    "failed to map segment",  # of a shared library that is loaded late
)


class Child:
    """One trial process, in a process group of its own.

    Its stdout and stderr go to the log at `log_path`, its events come through a pipe. It ends by
    itself when this process does, because its stdin then closes.
    """

    def __init__(
        self,
        log_path: Path,
        *,
        preload: str | None,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process; it imports jax and, if given, what the environment `preload` needs.

        Args:
            log_path: takes its stdout and stderr.
            preload: name of an environment.
            python: the interpreter, of this environment or of another that has this package.
            variables: of its environment, on top of this process's.
        """
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_path = log_path
        self._events_fd, write_fd = os.pipe()
        os.set_blocking(self._events_fd, False)
        command = [python, "-P", "-m", "tuner.child"]
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *command,
                    "--events-fd",
                    str(write_fd),
                    *(("--preload", preload) if preload else ()),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(write_fd,),
                start_new_session=True,
                env={**without_secrets(os.environ), **(variables or {})},
            )
        os.close(write_fd)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._events_fd, selectors.EVENT_READ)
        self._buffer = b""
        self._ended = False

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the process group."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def rename_log(self, log_path: Path) -> None:
        """Give the log its final name; what is written from now on goes there too."""
        os.replace(self._log_path, log_path)
        self._log_path = log_path

    def log_tail(self, size_bytes: int = 4000) -> str:
        """Return the end of what the process printed."""
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - size_bytes))
            return log.read().decode(errors="replace")

    def send(self, request: Request | dict[str, str]) -> None:
        """Write a request; a child that has ended already is noticed by `next_event`."""
        if self._process.stdin is None:
            raise ValueError("a child must be open to be asked, but got a closed one")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(request_line(request))
            self._process.stdin.flush()

    def next_event(self, timeout_s: float) -> Event | None:
        """Return the next event, or None when there is none within `timeout_s`.

        Lines that are no events are passed over: a library could write to any descriptor.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            line, separator, rest = self._buffer.partition(b"\n")
            if separator:
                self._buffer = rest
                with contextlib.suppress(ValueError, KeyError, AttributeError, TypeError):
                    return parse_event(line)
                continue
            if self._ended or not self._selector.select(max(0.0, deadline - time.monotonic())):
                return None
            chunk = os.read(self._events_fd, 1 << 16)
            self._ended = not chunk
            self._buffer += chunk

    @property
    def has_ended(self) -> bool:
        """Whether the child is gone and every event of it has been read."""
        if b"\n" in self._buffer:
            return False
        if not self._ended and self._process.poll() is not None:
            self._ended = not self._selector.select(0)
        return self._ended

    def end(self, grace_s: float = GRACE_S) -> int:
        """Wait for the process, kill what is left of its group, return the exit status."""
        try:
            # One that is still there is killed below, like any process it has left behind.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        returncode = self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._events_fd >= 0:
            self._selector.close()
            os.close(self._events_fd)
            self._events_fd = -1
        return returncode


class Launcher:
    """Starts children, and keeps one spare that has its imports behind it."""

    def __init__(self, logs: Path, *, preload: str | None) -> None:
        """Keep logs in the folder `logs`; children prepare for the environment `preload`."""
        self._logs = logs
        self.preload = preload
        self._spare: Child | None = None

    def prepare(self) -> None:
        """Start the spare. Only while nothing is measured: importing takes whole cores."""
        if self._spare is not None and not self._spare.is_alive:
            self._spare.end(grace_s=0)  # its death is not the fault of the next config
            self._spare = None
        if self._spare is None:
            self._spare = Child(self._logs / f"spare-{os.getpid()}.log", preload=self.preload)

    def take(self, log_name: str) -> Child:
        """Return the spare, or a new child, with its log under its own name."""
        self.prepare()
        child = self._spare
        if child is None:
            raise ValueError("a launcher must have a spare once it is prepared")
        self._spare = None
        child.rename_log(self._logs / log_name)
        return child

    def close(self) -> None:
        """End the spare."""
        if self._spare is not None:
            self._spare.end(grace_s=0)
            self._spare = None
            (self._logs / f"spare-{os.getpid()}.log").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class TrialRun:
    """What came of one train request: its end, its events, and its clock (monotonic seconds)."""

    outcome: Outcome
    events: tuple[Event, ...]
    requested: float
    ended: float

    def first(self, name: str) -> Event | None:
        """Return the first event of that name."""
        return next((event for event in self.events if event.name == name), None)

    def blocks(self) -> list[Event]:
        """Return the timed blocks in order."""
        return [event for event in self.events if event.name == "block"]


OnEvent = Callable[[Event], Outcome | None]
"""Sees every event as it comes; an outcome ends the trial with it."""


def run_trial(
    child: Child,
    request: TrainRequest,
    *,
    timeout_s: float,
    interrupts: Interrupts,
    on_event: OnEvent,
    give_up_at: float | None = None,
) -> TrialRun:
    """Send a train request and watch it to its end, whatever end that is.

    Args:
        child: a child that has not been asked anything but questions; it is ended here.
        request: the trial.
        timeout_s: seconds from request to end, after which the process group is killed.
        interrupts: what the user or the scheduler asked of the study.
        on_event: called with every event; returns an outcome to end the trial.
        give_up_at: monotonic time at which the trial is interrupted; None for never.
    """
    requested = time.monotonic()
    events: list[Event] = []
    verdict: Outcome | None = None
    child.send(request)
    while verdict is None and not child.has_ended:
        event = child.next_event(_POLL_S)
        if event is not None:
            events.append(event)
            try:
                verdict = on_event(event)
            except BaseException:
                child.end(0)
                raise
            if event.name == "done":
                break
        verdict = verdict or _interrupted(interrupts, events, fresh=event is not None)
        if verdict is None and time.monotonic() - requested > timeout_s:
            verdict = TimedOut(
                f"still {_phase(events)} after {timeout_s:g} s; raise --timeout if the config is "
                "worth more"
            )
        if verdict is None and give_up_at is not None and time.monotonic() > give_up_at:
            verdict = Interrupted("the budget ended before the trial did")
    if verdict is not None:
        child.send(STOP)
    returncode = child.end(0 if isinstance(verdict, TimedOut | Interrupted) else GRACE_S)
    outcome = verdict or classify(events, returncode, child.log_tail())
    return TrialRun(outcome, tuple(events), requested, time.monotonic())


def classify(events: list[Event], returncode: int, log_tail: str) -> Outcome:
    """Say how a trial ended that nobody stopped, from its events, exit status and last words."""
    last = events[-1] if events else None
    phase = _phase(events)
    if last is not None and last.name == "done":
        return Completed()
    if last is not None and last.name == "refused":
        predicted, limit = last.data["predicted_bytes"] / 1e9, last.data["limit_bytes"] / 1e9
        return PredictedOutOfMemory(
            f"the compiled program needs {predicted:.4g} GB, but the gate allows {limit:.4g} GB"
        )
    if last is not None and last.name in ("error", "rejected"):
        text = f"{last.data['type']} while {phase}: {last.data['text']}"
        if any(mark in text for mark in _OOM_TEXTS):
            return OutOfMemory(text)
        return Crashed(text)
    if returncode >= 0:
        return Crashed(f"the process ended with status {returncode} while {phase}")
    name = _signal_name(-returncode)
    if any(mark in log_tail for mark in _OOM_TEXTS):
        return OutOfMemory(f"the process ended by {name} while {phase}, out of memory by its log")
    hint = "; the host may be out of memory" if -returncode == signal.SIGKILL else ""
    return Crashed(f"the process ended by {name} while {phase}{hint}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def _phase(events: list[Event]) -> str:
    names = [event.name for event in events if event.name in _PHASES]
    return _PHASES[names[-1]] if names else "starting"


def _interrupted(interrupts: Interrupts, events: list[Event], fresh: bool) -> Outcome | None:
    """Return how an asked-for stop ends the trial now, or None if it goes on for the moment."""
    if interrupts.count >= 2:
        return Interrupted("killed at the second request to stop")
    if interrupts.count == 0 or _phase(events) in ("evaluating", "ending"):
        return None
    block_ended = fresh and events[-1].name == "block"
    if _phase(events) == "training" and not block_ended:
        return None
    return Interrupted(f"stopped on request while {_phase(events)}")
