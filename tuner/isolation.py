"""The trial process seen from outside: start, ask, watch, time out, kill, classify.

A trial runs in a process of its own because an exhausted device, an abort in a library or a hang
cannot be undone inside a process; here is everything that keeps such a fault from reaching the
study. Nothing here knows what a trial measures.
"""

import contextlib
import errno
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.address import without_secrets
from tuner.classification import classify, phase_of, signal_name
from tuner.errors import TunerError
from tuner.event_reader import EventReader
from tuner.interrupts import Interrupts
from tuner.outcome import Interrupted, Outcome, TimedOut
from tuner.protocol import LAST, STOP, Event, Request, TrainRequest, request_line
from tuner.standstill import RunningTime, Standstill
from tuner.trial_log import TrialLog
from tuner.warden import MARK, Warden, end_marked

CHILD_VARIABLE = "TUNER_TEST_CHILD"
"""Names the file of a program that tests run in place of the trial process."""

GRACE_S = 5.0
"""How long a child may take to end by itself once it has no more to do."""

_POLL_S = 0.1
_READING_S = 120.0
"""How long a child may leave a request unread: it may still be starting."""
_STARTING_S = 10.0
"""How long to try again when the system refuses to start a process."""
_REFUSALS = (errno.EAGAIN, errno.ENOMEM)
_STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_BOTH_SIGNALLED_S = 0.5
"""Time between the same signal's coming to a child and to this process."""


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
        mark: str | None = None,
        python: str = sys.executable,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process; it imports jax and, if given, what the environment `preload` needs.

        Args:
            log_path: where its stdout and stderr go.
            preload: an environment's name.
            mark: what its descendants are known by (see `tuner.warden`); by default its own.
            python: its interpreter, of this environment or of another that has this package.
            variables: of its environment, on top of this process's.

        Raises:
            OSError: the process could not be started.
        """
        self._log = TrialLog(log_path)
        self._mark = mark or f"{_new_mark()}0"
        read_fd, write_fd = os.pipe()
        try:
            self._process = self._start(write_fd, preload, python, variables or {})
        except OSError:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self._events = EventReader(read_fd)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        self.lived_on = False
        """Whether it had to be killed, because it was still there when it had no more to do."""

    def _start(
        self, write_fd: int, preload: str | None, python: str, variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        stand_in = os.environ.get(CHILD_VARIABLE)
        command = [python, "-P", *([stand_in] if stand_in else ["-m", "tuner.child"])]
        command += ["--events-fd", str(write_fd), "--parent", str(os.getpid())]
        with self._log.open() as log:
            return subprocess.Popen(
                [*command, *(("--preload", preload) if preload else ())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(write_fd,),
                start_new_session=True,
                env=without_secrets(os.environ) | {MARK: self._mark} | dict(variables),
            )

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
        self._log.rename(log_path)

    def log_tail(self, size_bytes: int = 4000) -> str:
        """Return the end of what the process printed."""
        return self._log.tail(size_bytes)

    def send(self, request: Request | dict[str, str]) -> None:
        """Write a request; a child that has ended already is noticed by `next_event`.

        So is one that does not read what its pipe cannot hold: it is killed.
        """
        if self._process.stdin is None:
            raise ValueError("a child must be open to be asked, but got a closed one")
        pipe, left = self._process.stdin.fileno(), memoryview(request_line(request))
        patience = int(_READING_S / _POLL_S)  # counted in looks: this process may stand still
        with contextlib.suppress(BrokenPipeError):
            while left and patience:
                if select.select([], [pipe], [], _POLL_S)[1]:
                    left = left[os.write(pipe, left) :]
                else:
                    patience -= 1
        if left and not patience:
            self._kill()

    def next_event(self, timeout_s: float) -> Event | None:
        """Return the next event, or None when there is none within `timeout_s`.

        Lines that are no events are passed over: a library could write to any descriptor. The log
        is held to its size meanwhile.
        """
        self._log.cut()
        return self._events.next(timeout_s)

    @property
    def has_ended(self) -> bool:
        """Whether the child is gone, or sends no more, and every event of it has been read."""
        is_over = self._events.has_ended or not self.is_alive
        return is_over and self._events.is_empty

    def end(self, grace_s: float = GRACE_S) -> int:
        """Wait for the process, kill what is left of it and its descendants; return its status."""
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.lived_on = True
        finally:
            self._kill()
        returncode = self._process.wait()
        end_marked(self._mark)
        self._log.cut()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._events.close()
        return returncode

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Launcher:
    """Starts children, and keeps one spare that has its imports behind it.

    Whatever becomes of this process, its children and what they have started end with it.
    """

    def __init__(self, logs: Path, *, preload: str | None) -> None:
        """Keep logs in the folder `logs`; children prepare for the environment `preload`."""
        self._logs = logs
        self.preload = preload
        self._spare: Child | None = None
        self._mark = _new_mark()
        self._started = 0
        self._warden: Warden | None = None

    def prepare(self) -> None:
        """Start the spare. Only while nothing is measured: importing takes whole cores.

        Where that is not possible now, `take` tries again when a child is needed.
        """
        self._drop_dead_spare()
        if self._spare is None:
            with contextlib.suppress(OSError):
                self._spare = self._start()

    def take(self, log_name: str) -> Child:
        """Return the spare, or a new child, with its log under its own name.

        Raises:
            TunerError: the system refuses to start a process.
            OSError: the log cannot be written.
        """
        self._drop_dead_spare()
        child = self._spare or self._start_patiently()
        self._spare = None
        child.rename_log(self._logs / log_name)
        return child

    def close(self) -> None:
        """End the spare and what it has started."""
        if self._spare is not None:
            self._spare.end(grace_s=0)
            self._spare = None
            self._spare_log.unlink(missing_ok=True)
        if self._warden is not None:
            self._warden.close()
            self._warden = None

    def _start(self) -> Child:
        if self._warden is None or not self._warden.is_alive:
            if self._warden is not None:
                self._warden.close()
            self._warden = Warden(self._mark, without_secrets(os.environ))
        self._started += 1
        mark = f"{self._mark}{self._started}"
        return Child(self._spare_log, preload=self.preload, mark=mark)

    @property
    def _spare_log(self) -> Path:
        """Named by more than the process's id, which another container has, too."""
        return self._logs / f"spare-{self._mark}log"

    def _start_patiently(self) -> Child:
        deadline = time.monotonic() + _STARTING_S
        while True:
            try:
                return self._start()
            except OSError as error:
                if error.errno not in _REFUSALS:
                    raise
                if time.monotonic() > deadline:
                    raise TunerError(
                        f"a process must start within {_STARTING_S:g} s, but got: "
                        f"{error.strerror}; end other processes or raise their limit (ulimit -u)"
                    ) from None
            time.sleep(_POLL_S)

    def _drop_dead_spare(self) -> None:
        if self._spare is not None and not self._spare.is_alive:
            self._spare.end(grace_s=0)  # its death is not the fault of the next config
            self._spare = None


def _new_mark() -> str:
    """Return a mark that no other process has, ending in a dot."""
    return f"{os.getpid()}-{secrets.token_hex(4)}."


@dataclass(frozen=True, slots=True)
class TrialRun:
    """What came of one train request: its end, its events, and its clock (monotonic seconds).

    `standstills` are the times in which nobody watched, because this process did not run.
    """

    outcome: Outcome
    events: tuple[Event, ...]
    requested: float
    ended: float
    standstills: tuple[Standstill, ...] = ()

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
        timeout_s: seconds from request to end, after which the process group is killed; those in
            which this process did not run do not count.
        interrupts: what the user or the scheduler asked of the study.
        on_event: called with every event; returns an outcome to end the trial.
        give_up_at: monotonic time at which the trial is interrupted; None for never.
    """
    requested = time.monotonic()
    running = RunningTime()
    events: list[Event] = []
    verdict: Outcome | None = None
    child.send(request)
    while verdict is None and not child.has_ended:
        running.see_work()
        event = child.next_event(_POLL_S)
        running.see_wait()
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
        if verdict is None and running.seconds > timeout_s:
            verdict = TimedOut(
                f"still {phase_of(events)} after {timeout_s:g} s; raise --timeout if the config is "
                "worth more"
            )
        if verdict is None and give_up_at is not None and time.monotonic() > give_up_at:
            verdict = Interrupted("the budget ended before the trial did")
    if verdict is not None:
        child.send(STOP)
    returncode = child.end(0 if isinstance(verdict, TimedOut | Interrupted) else GRACE_S)
    is_cut_off = verdict is None and (not events or events[-1].name not in LAST)
    if is_cut_off and _was_stopped_too(returncode, interrupts):
        verdict = Interrupted(f"ended by {signal_name(-returncode)} while {phase_of(events)}")
    outcome = verdict or classify(events, returncode, child.log_tail(), lived_on=child.lived_on)
    return TrialRun(outcome, tuple(events), requested, time.monotonic(), tuple(running.standstills))


def _interrupted(interrupts: Interrupts, events: list[Event], fresh: bool) -> Outcome | None:
    """Return how an asked-for stop ends the trial now, or None if it goes on for the moment."""
    if interrupts.count >= 2:
        return Interrupted("killed at the second request to stop")
    if interrupts.count == 0 or phase_of(events) in ("evaluating", "ending"):
        return None
    block_ended = fresh and events[-1].name == "block"
    if phase_of(events) == "training" and not block_ended:
        return None
    return Interrupted(f"stopped on request while {phase_of(events)}")


def _was_stopped_too(returncode: int, interrupts: Interrupts) -> bool:
    """Whether a child was killed by whoever asked this process to stop, in the same breath."""
    if -returncode in _STOPPING_SIGNALS:
        deadline = time.monotonic() + _BOTH_SIGNALLED_S
        while not interrupts.count and time.monotonic() < deadline:
            time.sleep(0.01)
    return bool(interrupts.count) and -returncode in (*_STOPPING_SIGNALS, signal.SIGKILL)
