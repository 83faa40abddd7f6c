"""Ends what a trial leaves behind, and all trials once the process that runs them is gone.

Every trial process carries a mark in its environment, which whatever it starts inherits: also a
process that has made a session of its own, that is stopped, or whose parents have ended. The warden
is a small process beside the study that waits for its end and then kills what carries the study's
mark. Not found are processes that have cleared their environment or run as another user. Standard
library only, and none of our modules: a warden is there in 50 ms and sleeps from then on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

MARK = "TUNER_PROCESS"
"""Environment variable of a trial process: the study's mark, a dot, and a number."""
PATIENCE_S = 5.0
"""How long processes are killed that start others all the time."""
_PROC = Path("/proc")


def marked(mark: str) -> Iterator[int]:
    """Return the ids of the processes whose mark is `mark` or, if it ends in a dot, begins so."""
    wanted = f"{MARK}={mark}".encode()
    for name in os.listdir(_PROC) if _PROC.is_dir() else ():
        if name.isdecimal() and _carries(name, wanted):
            yield int(name)


def end_marked(mark: str) -> None:
    """Kill every process with that mark, and those that they start meanwhile."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = list(marked(mark))
        if not found:
            return
        for pid in found:
            _kill(pid, mark)
        time.sleep(0.01)  # memory and environment of a killed process go a moment later


class Warden:
    """The process that outlives this one for as long as it takes to end its trials."""

    def __init__(self, mark: str, environment: Mapping[str, str]) -> None:
        """Start it, with environment variables; `mark` ends in a dot."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; what still carries the mark ends first."""
        self._process.communicate()


def _carries(name: str, wanted: bytes) -> bool:
    try:
        with open(_PROC / name / "environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:  # it has ended, or belongs to somebody else
        return False
    if wanted.endswith(b"."):
        return any(entry.startswith(wanted) for entry in entries)
    return wanted in entries


def _kill(pid: int, mark: str) -> None:
    """Kill a process unless its id has passed to another one since it was found."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            if _carries(str(pid), f"{MARK}={mark}".encode()):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def _main(mark: str) -> None:
    """Wait for the end of the process that holds the other end of stdin; end its trials."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a scheduler that signals all asks the study to stop
    while os.read(0, 64):
        pass
    end_marked(mark)
    if os.getppid() == _PARENT:
        return  # closed in good order
    time.sleep(1.0)
    end_marked(mark)  # one that was being started when its parent was killed


if __name__ == "__main__":
    _PARENT = os.getppid()
    _main(sys.argv[1])
