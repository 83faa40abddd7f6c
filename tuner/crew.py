"""The leader's workers on its own machine: started, told of interruptions, replaced, waited for.

Apart from the search because a worker is a process like any other: it runs `tuner worker`, hears
the leader on its standard input, and ends at once when the leader is gone and the pipe with it.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Self

from envs.names import is_factory
from tuner.address import VARIABLE
from tuner.bench import Say
from tuner.config import DATA_FILES, StopSettings, StudyConfig, flag
from tuner.interrupts import ORDER, SLOT_VARIABLE, Interrupts
from tuner.placement import Place
from tuner.session import Session

PASSED_ON = (
    "sampler",
    "pruner",
    "memory_limit",
    "reserve",
    "probe",
    "repeat_disturbed",
    "runs_dir",
    "cache_dir",
    *DATA_FILES,
)
"""Settings beside the stop flags that a command may have been given anew."""
POLL_S = 0.2
GRACE_S = 10.0
"""How long a worker may take to end once its leader has closed the pipe."""
LATEST_S = 60.0
"""How long a worker may take to end when no trial runs any more."""
LOOK_S = 2.0
"""Time between two looks at whether a trial runs."""
LINES_S = 2.0
"""How long a worker's last lines may take to come once it has ended."""
MOST_RESTARTS = 1
"""Times that a worker which died is started anew."""


class Crew:
    """The workers beside a leader, one in each place; to be used as a context manager.

    Leaving it waits for them, after an error it ends them at once: their trials are closed and
    queued again by whoever goes on.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        interrupts: Interrupts,
        say: Say,
        says_their_lines: bool = False,
    ) -> None:
        """Make a crew; nobody is started yet.

        Args:
            places: where each worker measures.
            arguments: of `tuner worker`, the same for all.
            environ: the environment variables of the workers.
            interrupts: what the user asks of the leader, which is passed on.
            say: tells the user a line.
            says_their_lines: whether what they write goes through `say`, too, and not straight to
                this process's stderr.
        """
        self._arguments, self._environ = tuple(arguments), dict(environ)
        self._interrupts, self._say = interrupts, say
        self._says_their_lines = says_their_lines
        self._is_cancelled = False
        self._until: float | None = None
        self._keepers = [
            threading.Thread(target=self._keep, args=(number, place), name=f"worker {number}")
            for number, place in enumerate(places, 1)
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_cancelled = error is not None
        self.wait()

    def start(self, budget_s: float | None) -> None:
        """Start every worker, each with so much of the command's budget."""
        if budget_s is not None:
            self._until = time.monotonic() + budget_s
        for keeper in self._keepers:
            keeper.start()

    def wait(self, is_busy: Callable[[], bool] | None = None) -> None:
        """Wait until every worker has ended by itself, as it does when there is reason to stop.

        Args:
            is_busy: whether any of them still has a trial. One that has not ended `LATEST_S` after
                that is ended: it was stopped, and hears nothing. What it measured and could not
                save waits in its journal. None to wait without end.
        """
        idle_since = time.monotonic()
        while late := [k for k in self._keepers if k.ident is not None and k.is_alive()]:
            late[0].join(LOOK_S)
            if is_busy is None or is_busy():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > LATEST_S and not self._is_cancelled:
                names = ", ".join(keeper.name for keeper in late)
                self._say(f"{names} did not end {LATEST_S:g} s after the last trial: ended now")
                self._is_cancelled = True

    def _keep(self, number: int, place: Place) -> None:
        """Run the worker of one place, and another one should it die."""
        for attempt in range(1 + MOST_RESTARTS):
            code = self._run(number, place)
            if self._is_cancelled or self._interrupts.count or not _has_died(code):
                return
            what = "started again" if attempt < MOST_RESTARTS else "not started a second time"
            self._say(f"worker {number} died ({_describe(code)}): {what}")

    def _run(self, number: int, place: Place) -> int:
        """Run a worker to its end; return its exit status."""
        command = [sys.executable, "-P", "-m", "tuner", "worker", *self._arguments]
        if self._until is not None:  # a worker that is started again has what is left
            left_s = max(self._until - time.monotonic(), 1.0)
            command += ["--budget", f"{left_s:.1f}s"]
        with place.pinned():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE if self._says_their_lines else None,
                env={**self._environ, **place.environ, SLOT_VARIABLE: str(number)},
                start_new_session=True,  # a Ctrl-C of the terminal comes through the leader, once
            )
        if process.stderr is None:
            return self._follow(process)
        lines = threading.Thread(target=self._pass_on, args=(process.stderr,), daemon=True)
        lines.start()
        code = self._follow(process)
        lines.join(LINES_S)
        return code

    def _follow(self, process: subprocess.Popen[bytes]) -> int:
        """Pass on what is asked until a worker ends; return its exit status."""
        assert process.stdin is not None
        orders = 0
        with process.stdin:
            while not self._is_cancelled:
                if orders < self._interrupts.count:
                    orders += 1
                    _tell(process)
                try:
                    return process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        try:
            return process.wait(GRACE_S)
        except subprocess.TimeoutExpired:  # it was stopped, and hears nothing
            process.kill()
            return process.wait()

    def _pass_on(self, lines: IO[bytes]) -> None:
        with lines:
            for line in lines:
                self._say(line.decode(errors="replace").rstrip("\n"))


def crew_beside(session: Session, places: Sequence[Place]) -> Crew:
    """Return the crew of a leader, who measures with the same settings as it."""
    config = session.config
    environ = dict(os.environ)
    if config.storage is not None:
        environ[VARIABLE] = config.storage  # not in the list of processes: it may hold a password
    return Crew(
        places,
        [session.study.study_name, *_as_flags(config)],
        environ,
        interrupts=session.bench.interrupts,
        say=session.say,
        says_their_lines=session.bench.observer.owns_terminal,
    )


def _as_flags(config: StudyConfig) -> list[str]:
    """Return the flags that make a worker's settings equal to these, but for what stays behind."""
    data = config.as_data()
    names = [name for name in (*StopSettings.model_fields, *PASSED_ON) if name != "budget"]
    names += [name for name in ("env", "trainer") if is_factory(str(data[name]))]
    given = [(flag(name), data[name]) for name in names if data[name] is not None]
    return [text for name, value in given for text in (name, str(value))]


def _tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(ORDER)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it has just ended


def _has_died(code: int) -> bool:
    """Whether a worker ended in a way that another may not: a signal, or an unexpected fault."""
    return code < 0 or code == 1


def _describe(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"status {code}"
