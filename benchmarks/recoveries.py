"""How long the trial of a killed worker stays RUNNING before another worker gives it up."""

import re
import statistics
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import sqlalchemy as sa
from crowd import SAID

POLL_S = 0.2
WORKERS = ("leader", "worker")
_BEGUN = re.compile(r"^trial (\d+): \d+x", re.MULTILINE)


class Recoveries:
    """Watches the trials of workers that are killed; to be used as a context manager."""

    def __init__(self, url: str, study: str) -> None:
        self._engine = sa.create_engine(url, pool_pre_ping=True)
        self._study = study
        self._lock = threading.Lock()
        self._open: dict[int, tuple[float, bool]] = {}
        self.seconds: list[float] = []
        self.num_interrupted = 0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="recoveries")

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._watcher.join()
        self._engine.dispose()

    def note(self, role: str, process: psutil.Process) -> None:
        """Take note of the trial that a process measures that is about to be killed."""
        number = trial_of(process) if role in WORKERS else None
        if number is not None:
            with self._lock:
                self._open[number] = (time.monotonic(), False)

    def forget(self) -> None:
        """Time nothing that is open now: the database was away."""
        with self._lock:
            self.num_interrupted += len(self._open)
            self._open.clear()

    def summary(self) -> dict[str, Any]:
        """Return the median, the largest and all, in seconds."""
        known = sorted(round(s, 1) for s in self.seconds)
        return {
            "number": len(known),
            "median": statistics.median(known) if known else None,
            "largest": max(known, default=None),
            "interrupted": self.num_interrupted,
            "all": known,
        }

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                running = self._running()
            except sa.exc.DBAPIError:
                self.forget()
                continue
            with self._lock:
                self._compare(running, time.monotonic())

    def _compare(self, running: set[int], now: float) -> None:
        for number, (killed, was_running) in list(self._open.items()):
            if number in running:
                self._open[number] = (killed, True)
                continue
            del self._open[number]
            if was_running:  # else it was told of just before the kill
                self.seconds.append(now - killed)

    def _running(self) -> set[int]:
        query = sa.text(
            "SELECT number FROM trials JOIN studies USING (study_id) "
            "WHERE study_name = :study AND state = 'RUNNING'"
        )
        with self._engine.connect() as connection:
            return set(connection.scalars(query, {"study": self._study}))


def trial_of(worker: psutil.Process) -> int | None:
    """Return the number of the trial that a worker of a `Crowd` began last, by what it said."""
    try:
        said = Path(f"/proc/{worker.pid}/cwd").readlink() / SAID
        begun = _BEGUN.findall(said.read_text(errors="replace"))
    except OSError:
        return None
    return int(begun[-1]) if begun else None
