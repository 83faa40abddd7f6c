"""A study whose trials are looked up in a recorded table: all the rest of it is that of a real one.

Only what runs a trial and where results are kept are replaced, so that a trial takes milliseconds.
Time is the device's, as it was recorded: a config's first measurement pays for its compilation.
"""

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from grid import Row
from optuna.samplers import BaseSampler
from replay_half import Half

from storage.records import CurvePoint, TrialRecord
from storage.studies import set_study_fact
from tuner.bench import Order
from tuner.config import StudyConfig
from tuner.errors import ExportRefused
from tuner.finalists import choose_from, hold_contest
from tuner.interrupts import Interrupts
from tuner.measurement import Measurement
from tuner.observer import NOBODY
from tuner.outcome import Interrupted, Outcome, Pruned
from tuner.profiles import PROFILE_NAMES
from tuner.protocol import Event, FitRequest, PreflightRequest, Question, RandomRequest
from tuner.references import References, judge
from tuner.run import calibrate
from tuner.search.pruner import make_pruner
from tuner.session import Session
from tuner.settings import load_config
from tuner.space import HardwareConfig
from tuner.trials import search


class Clock:
    """Device-seconds since the study began."""

    def __init__(self) -> None:
        self.now_s = 0.0


class TableBench:
    """Answers as a bench would, from a table; each seed draws a config's repeats in its own order.

    A repeat that was not recorded is not made: the same figures again would pass for those of
    another seed. What crashed is tried again, and the baseline calibrated, on what there is.
    """

    def __init__(self, half: Half, clock: Clock, *, seed: int) -> None:
        self.interrupts, self.observer = Interrupts(), NOBODY
        self._half, self._clock = half, clock
        shuffled = random.Random(seed)
        # One draw for each config in the same order, whatever is searched: common random numbers.
        self._order = {c: shuffled.sample(rows, len(rows)) for c, rows in half.rows.items()}
        self._times: dict[HardwareConfig, int] = {}
        self._running: Measurement | None = None

    def say(self, line: str) -> None:
        """Nobody listens."""

    def ask(self, request: Question) -> Event:
        """Answer what a calibration asks."""
        if isinstance(request, RandomRequest):
            return Event("random", 0.0, self._half.facts["chance"])
        if isinstance(request, FitRequest):
            return Event("fits", 0.0, {"hardware": self._first_that_fits(request)})
        if isinstance(request, PreflightRequest):
            return Event("traced", 0.0, {"traced": 0, "seconds": 0.0})
        raise ValueError(f"a replay must ask what calibrations ask, but got {request.kind}")

    def measure(
        self,
        order: Order,
        *,
        on_block: Callable[[Event], Outcome | None],
        give_up_at: float | None = None,
    ) -> Measurement:
        """Return what was recorded, and let its device-seconds pass."""
        rows, times = self._order[order.config], self._times.get(order.config, 0)
        row = rows[times % len(rows)]
        record = replace(row.record, trial=order.trial, replicate=order.replicate)
        measurement = replace(row, record=record)
        if order.trial > 0 and order.replicate > 0 and times >= len(rows):
            return _stopped(measurement, "it was not recorded more often", duration=0.0)
        self._running = row
        self._times[order.config] = times + 1
        cost_s = self._half.cost_s(row, is_first=times == 0)
        phases = record.phases | {"compile": self._half.compiles_s(row, times == 0)}
        for number, point in enumerate(row.curve, start=1):
            if (ended := on_block(_event(point))) is not None:
                cost_s -= sum(p.seconds for p in row.curve[number:])
                cost_s -= phases.pop("evaluate", 0.0)  # nobody asks what a cut trial learned
                measurement = _cut(measurement, number, ended)
                break
        left_s = math.inf if give_up_at is None else max(0.0, give_up_at - self._clock.now_s)
        if cost_s > left_s:
            kept_for = "as in a study: the time that is left is kept for the profiles"
            measurement, cost_s = _stopped(measurement, kept_for, duration=left_s), left_s
        self._clock.now_s += cost_s
        record = replace(measurement.record, duration=cost_s, phases=phases)
        return replace(measurement, record=record)

    def util_so_far(self) -> float | None:
        """Return the utilisation of the running trial: a table has that of its whole window."""
        return None if self._running is None else self._running.record.device_util

    def _first_that_fits(self, request: FitRequest) -> dict[str, int] | None:
        for candidate in request.candidates:
            shape = HardwareConfig(**candidate)
            rows = [
                row for c, found in self._half.rows.items() if c.shape == shape for row in found
            ]
            if any(row.record.status not in ("predicted_oom", "oom") for row in rows):
                return candidate
        return None


@dataclass(slots=True)
class MemoryTable:
    """What `Telemetry` keeps, of one study, in memory."""

    saved: dict[tuple[int, int], TrialRecord] = field(default_factory=dict)

    def records(self, study: str) -> list[TrialRecord]:
        """Return all measurements, by trial and replicate."""
        return [self.saved[key] for key in sorted(self.saved)]

    def record(self, study: str, trial: int, replicate: int = 0) -> TrialRecord | None:
        """Return one measurement."""
        return self.saved.get((trial, replicate))

    def discard(self, study: str, trial: int) -> None:
        """Forget a trial."""
        self.saved = {key: record for key, record in self.saved.items() if key[0] != trial}


@dataclass(slots=True, kw_only=True)
class ReplaySession(Session):
    """A session that keeps its results in memory and whose budget is device-seconds."""

    clock: Clock
    results: MemoryTable
    on_record: Callable[[], None] = lambda: None

    @property
    def table(self) -> Any:
        """Where results are kept."""
        return self.results

    def now_s(self) -> float:
        """Return the time of the study's device."""
        return self.clock.now_s

    def keep(self, measurement: Measurement) -> TrialRecord:
        """Judge a measurement and keep it."""
        record = measurement.record
        if self.references is not None:
            record = judge(measurement, self.references)
        self.results.saved[record.trial, record.replicate] = record
        self.on_record()
        return record

    def rewrite_csv(self) -> None:
        """Keep no files."""


class NoHeartbeat:
    """Nobody else searches."""

    def begin(self, number: int) -> None:
        """Take no note."""

    def end(self) -> None:
        """Take no note."""


MakeSampler = Callable[[StudyConfig, int], BaseSampler]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to search: its sampler, by config and seed, and settings of its own."""

    make_sampler: MakeSampler
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replay:
    """What one search came to.

    `chosen` is each profile's config, the baseline where nothing may be exported; `trace` has the
    device-seconds and what would have been chosen after the calibration and after each measurement
    of the search, finalists left out; `trials` are those that told something, the baseline's among
    them; `ooms` counts trials that ran out of memory on the device.
    """

    chosen: dict[str, HardwareConfig]
    device_s: float
    trials: int
    ooms: int
    trace: tuple[tuple[float, dict[str, HardwareConfig]], ...]


def config_of_table(half: Half, method: Method, **settings: object) -> StudyConfig:
    """Return the settings of a study on this table."""
    recorded = {**half.facts["settings"], "env_steps": half.facts["env_steps"]}
    kind = half.facts["device"]["kind"]
    quiet = {"repeat_disturbed": False, "probe": False}
    return load_config({**recorded, **quiet, **method.settings, **settings}, {}).resolved(kind)


def replay(
    half: Half, method: Method, *, seed: int, budget_s: float | None, traced: bool = False
) -> Replay:
    """Run one study on a table.

    Args:
        half: what is searched.
        method: how.
        seed: of the sampler, and of the order in which repeats are drawn.
        budget_s: device-seconds, calibration and finalists included; None for no limit.
        traced: whether the choice is looked at after every trial, which takes time.
    """
    session = calibrated(half, method, seed=seed, budget_s=budget_s)
    trace: list[tuple[float, dict[str, HardwareConfig]]] = []

    def look() -> None:
        trace.append((session.clock.now_s, exported(session)))

    if traced:
        look()
        session.on_record = look
    heartbeat: Any = NoHeartbeat()
    search(session, heartbeat)
    session.on_record = lambda: None
    with suppress(ExportRefused):
        hold_contest(session)
    records = session.records()
    return Replay(
        chosen=exported(session),
        device_s=session.clock.now_s,
        trials=len({r.trial for r in records if r.status != Interrupted.status}),
        ooms=sum(r.status == "oom" for r in records),
        trace=tuple(trace),
    )


def calibrated(half: Half, method: Method, *, seed: int, budget_s: float | None) -> "ReplaySession":
    """Return a study on a table, with its baseline measured."""
    config = config_of_table(half, method, seed=seed)
    config = config.model_copy(update={"budget": budget_s})
    study = optuna.create_study(
        study_name="replay",
        direction="maximize",
        sampler=method.make_sampler(config, seed),
        pruner=make_pruner(config.pruner),
    )
    set_study_fact(study, "hardware", half.facts["device"])
    clock = Clock()
    bench: Any = TableBench(half, clock, seed=seed)
    table: Any = MemoryTable()
    session = ReplaySession(
        config=config,
        study=study,
        telemetry=table,
        bench=bench,
        say=bench.say,
        started=0.0,
        clock=clock,
        results=table,
    )
    calibrate(session)
    return session


def chosen(
    records: Sequence[TrialRecord],
    references: References,
    baseline: HardwareConfig,
    min_feasible: int,
) -> dict[str, HardwareConfig]:
    """Return what would be exported; the baseline, which one has anyway, where nothing may be."""
    try:
        choices = choose_from(records, references, min_feasible=min_feasible)
    except ExportRefused:
        return dict.fromkeys(PROFILE_NAMES, baseline)
    return {name: choices[name].summary.config for name in PROFILE_NAMES}


def exported(session: Session) -> dict[str, HardwareConfig]:
    """Return each profile's config as a study would choose it now."""
    references, baseline = references_of(session), session.config.baseline
    if baseline is None:
        raise ValueError("a calibrated study must have a baseline")
    return chosen(session.records(), references, baseline, session.config.min_feasible)


def references_of(session: Session) -> References:
    """Return what a calibrated study scores by."""
    if session.references is None:
        raise ValueError("a study must be calibrated before its profiles are chosen")
    return session.references


def _event(point: CurvePoint) -> Event:
    names = ("metrics", "learning", "env_steps", "seconds")
    return Event("block", 0.0, {name: getattr(point, name) for name in names})


def _stopped(measurement: Measurement, reason: str, *, duration: float) -> Measurement:
    """Return a measurement that was ended, or not begun, and tells nothing."""
    outcome = Interrupted(reason)
    record = replace(
        measurement.record,
        status=outcome.status,
        reason=reason,
        duration=duration,
        mean_return=None,
        sps=None,
    )
    return replace(
        measurement, record=record, curve=(), throughput=None, evaluation=None, outcome=outcome
    )


def _cut(measurement: Measurement, blocks: int, ended: Outcome) -> Measurement:
    """Return a measurement that was stopped after so many blocks, with the speed of these."""
    curve = measurement.curve[:blocks]
    kept = Row.of(replace(measurement, curve=curve, evaluation=None)).measurement(ended)
    record = replace(
        measurement.record,
        status=ended.status if isinstance(ended, Pruned) else measurement.record.status,
        reason=ended.reason,
        mean_return=None,
        sps=None if kept.throughput is None else kept.throughput.sps,
    )
    return replace(kept, record=record)
