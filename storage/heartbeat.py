"""Heartbeats: how the workers of a study know which of its running trials have lost theirs.

In place of Optuna's own, which do not exist behind its gRPC proxy, compare the clocks of two
machines, fail a trial even if its measurement was saved in time, and look only before a trial
starts. A beat is an attribute of the running trial and says how many came before it, so that a
watcher needs no clock but its own monotonic one.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from storage import beats
from storage.beats import BEAT_ATTR, HEARTBEAT_S, Beat
from storage.database import passing_fault
from storage.patient import storage_of

__all__ = [
    "HEARTBEAT_S",
    "Heartbeat",
    "dead_trials",
    "is_dead_here",
]

OnDead = Callable[[FrozenTrial], None]

_TICKS = 2
"""Beats, and looks at the others', in one interval."""
_SILENT_TICKS = 2.5
"""A trial is dead when its beat is the same at three looks in a row after the first."""


class Heartbeat:
    """Beats for the trial that this process measures, and watches those of all others.

    Twice in an interval a thread beats and looks, so that a trial whose worker died is reported
    within two intervals of its death, and a worker may be held up for more than one. A database
    that is away is not waited for: a beat that it misses is followed by another, and afterwards
    every trial's silence counts from zero, for its beats could not arrive either.

    A trial counts as this process's from the moment it starts, before `begin`: a sampler may think
    for longer than two intervals.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        worker: str,
        on_dead: OnDead,
        interval_s: float = HEARTBEAT_S,
    ) -> None:
        """Make the heartbeat of a worker; it beats in the body of a `with`.

        Args:
            study: The study, in a storage of `storage.studies.open_storage`.
            worker: The worker's name, for people.
            on_dead: Is given each dead trial, in the heartbeat's thread, and should close it. It
                is called again at the next look while the trial still runs. Calls to the database
                do not wait in it.
            interval_s: Seconds in which a worker beats at least once.
        """
        self._study = study
        self._storage = storage_of(study)
        self._worker = worker
        self._on_dead = on_dead
        self._tick_s = interval_s / _TICKS
        self._silence = _Silence(self._tick_s)
        self._own: int | None = None
        self._n = 0
        self._fault: Exception | None = None
        self._is_ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._storage.on_start = self._take
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_ended = True
        self._storage.on_start = None
        self._wake.set()
        self._thread.join(2 * self._tick_s)  # a call to a silent server may hold it for longer
        if error is None:
            self.check()

    def begin(self, number: int) -> None:
        """Beat for this trial from now on, at once and then in every interval.

        Raises:
            Exception: What `on_dead` raised since, unless it was a fault of the database that may
                pass; the beats went on meanwhile.
        """
        self.check()
        storage = self._study._storage
        self._take(storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number))

    def end(self) -> None:
        """Beat for no trial: this process measures none."""
        self._own = None

    def _take(self, trial_id: int) -> None:
        self._own = trial_id
        self._wake.set()

    def check(self) -> None:
        """Raise what `on_dead` raised since the last look; for whoever waits for its work."""
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _run(self) -> None:
        looked = -float("inf")
        while not self._is_ended:
            self._wake.clear()
            self._carry_out(self._beat)
            if time.monotonic() - looked >= 0.9 * self._tick_s:
                looked = time.monotonic()
                self._carry_out(self._look)
            self._wake.wait(max(0.0, looked + self._tick_s - time.monotonic()))
        self._study._storage.remove_session()

    def _carry_out(self, step: Callable[[], None]) -> None:
        try:
            with self._at_once():
                step()
        except Exception as error:
            self._silence.forget()
            if passing_fault(error, self._storage.url) is None:
                self._fault = self._fault or error

    def _at_once(self) -> AbstractContextManager[None]:
        patience = self._storage.patience
        return nullcontext() if patience is None else patience.without_waiting()

    def _beat(self) -> None:
        own = self._own
        if own is None:
            return
        self._n += 1
        beat = beats.new_beat(self._worker, self._n)
        try:
            self._study._storage.set_trial_system_attr(own, BEAT_ATTR, beat)
        except UpdateFinishedTrialError:
            if self._own == own:  # it was told just now, or given to another worker
                self._own = None

    def _look(self) -> None:
        beats_now = self._storage.beats_of_running(self._study._study_id)
        others = {trial_id: beat for trial_id, beat in beats_now.items() if trial_id != self._own}
        for trial_id in self._silence.dead(others, time.monotonic()):
            if trial_id != self._own:
                self._carry_out(partial(self._report, trial_id))

    def _report(self, trial_id: int) -> None:
        trial = self._study._storage.get_trial(trial_id)
        if trial.state == TrialState.RUNNING:
            self._on_dead(trial)


class _Silence:
    """For how long each trial's beat has not changed, as seen by one watcher.

    A gap between two looks counts for one tick at most: a watcher that was stopped, or whose
    machine slept, has not watched meanwhile.
    """

    def __init__(self, tick_s: float) -> None:
        self._tick_s = tick_s
        self._seen: dict[int, tuple[object, float]] = {}
        self._looked: float | None = None

    def forget(self) -> None:
        """Let every silence count from zero."""
        self._seen.clear()
        self._looked = None

    def dead(self, running: Mapping[int, Beat | None], now: float) -> list[int]:
        """Look at the beats of trials at monotonic time `now`; return those of dead workers.

        Trials are known by their ids.
        """
        passed_s = 0.0 if self._looked is None else min(now - self._looked, self._tick_s)
        self._looked = now
        seen: dict[int, tuple[object, float]] = {}
        for trial_id, beat in running.items():
            before, silent_s = self._seen.get(trial_id, (None, 0.0))
            is_same = trial_id in self._seen and before == beat
            seen[trial_id] = (beat, silent_s + passed_s if is_same else 0.0)
        self._seen = seen
        limit_s = _SILENT_TICKS * self._tick_s
        return [
            trial_id
            for trial_id, beat in running.items()
            if seen[trial_id][1] > limit_s or _is_gone_here(beat)
        ]


def is_dead_here(trial: FrozenTrial) -> bool:
    """Whether a running trial's process was one of this machine and is gone; one look tells."""
    return _is_gone_here(trial.system_attrs.get(BEAT_ATTR))


def _is_gone_here(beat: Beat | None) -> bool:
    return beat is not None and beats.is_process_gone(beat)


def dead_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the running trials that one look shows to be dead, by number; it does not wait.

    For commands that cannot watch: see `storage.beats.is_surely_dead`.
    """
    now = datetime.now(UTC)
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if beats.is_surely_dead(
            trial.system_attrs.get(BEAT_ATTR),
            trial.datetime_start and trial.datetime_start.astimezone(UTC),
            now,
        )
    ]
