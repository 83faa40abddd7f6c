"""A study whose trials are looked up in a recorded table: all the rest of it is that of a real one.

Only what runs a trial and where results are kept are replaced, so that a trial takes milliseconds.
Time is the device's, as it was recorded: a config's first measurement pays for its compilation.
"""

import itertools
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from grid import Grid
from optuna.samplers import BaseSampler

from storage.records import CurvePoint, TrialRecord
from storage.studies import set_study_fact
from tuner.aggregate import ConfigSummary, hardware_of, summarise
from tuner.bench import Order
from tuner.config import StudyConfig
from tuner.errors import ExportRefused
from tuner.finalists import choose_from, confirm, tie_width
from tuner.interrupts import Interrupts
from tuner.measurement import Measurement
from tuner.observer import NOBODY
from tuner.outcome import Completed, Diverged, Outcome, OutOfMemory, Pruned, TimedOut
from tuner.profile_rules import BUSY_SHARE, QUALITY_FLOOR, UTIL_TIE
from tuner.protocol import Event, FitRequest, PreflightRequest, Question, RandomRequest
from tuner.references import References, judge
from tuner.run import calibrate
from tuner.search.pruner import make_pruner
from tuner.session import Session
from tuner.settings import load_config
from tuner.space import HardwareConfig
from tuner.trials import search

PROFILES = ("balanced", "max_gpu", "max_quality")
_FAILURES: dict[str, Callable[[str], Outcome]] = {
    "diverged": Diverged,
    "oom": OutOfMemory,
    "predicted_oom": OutOfMemory,
    "timeout": TimedOut,
}


@dataclass(frozen=True, slots=True)
class Half:
    """The measurements of one half of a table, by config, in the order of their repeats.

    `compile_s` has two figures of each config, from the whole table: the longest compilation, and
    the shortest of a program from the cache, the median over all configs where it has none.
    """

    facts: dict[str, Any]
    rows: dict[HardwareConfig, tuple[Measurement, ...]]
    compile_s: dict[HardwareConfig, tuple[float, float]]

    @property
    def one_pass_s(self) -> float:
        """Device-seconds of measuring every config once, compilation included."""
        return sum(self.cost_s(rows[0], is_first=True) for rows in self.rows.values())

    def cost_s(self, row: Measurement, *, is_first: bool) -> float:
        """Return the device-seconds of a measurement; the first of a config compiles."""
        return (row.record.duration or 0.0) - _compile_s(row) + self.compiles_s(row, is_first)

    def compiles_s(self, row: Measurement, is_first: bool) -> float:
        """Return how long a measurement compiles."""
        cold_s, warm_s = self.compile_s[hardware_of(row.record)]
        return cold_s if is_first else warm_s


def halves(grid: Grid) -> tuple[Half, Half]:
    """Return the half to search on (even repeats) and the half to judge by (odd ones)."""
    parts: tuple[dict[HardwareConfig, list[Measurement]], ...] = ({}, {})
    took_s: dict[HardwareConfig, list[float]] = {}
    cached_s: dict[HardwareConfig, list[float]] = {}
    for row in sorted(grid.rows, key=lambda r: (r.config, r.repeat)):
        measurement = row.measurement(outcome_of(row.record))
        parts[row.repeat % 2].setdefault(row.config, []).append(measurement)
        took_s.setdefault(row.config, []).append(_compile_s(measurement))
        if row.record.compile_cached:
            cached_s.setdefault(row.config, []).append(_compile_s(measurement))
    usual_s = statistics.median(
        itertools.chain(*cached_s.values()) if cached_s else itertools.chain(*took_s.values())
    )
    compile_s = {c: (max(all_s), min(cached_s.get(c, [usual_s]))) for c, all_s in took_s.items()}
    searched, judging = (
        Half(grid.facts, {config: tuple(rows) for config, rows in part.items()}, compile_s)
        for part in parts
    )
    return searched, judging


class Clock:
    """Device-seconds since the study began."""

    def __init__(self) -> None:
        self.now_s = 0.0


class TableBench:
    """Answers as a bench would, from a table; each seed draws a config's repeats in its own order.

    A config that is measured more often than it was recorded gets the same rows again.
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
        self._running = rows[times % len(rows)]
        self._times[order.config] = times + 1
        row = self._running
        record = replace(row.record, trial=order.trial, replicate=order.replicate)
        measurement = replace(row, record=record)
        cost_s = self._half.cost_s(row, is_first=times == 0)
        phases = record.phases | {"compile": self._half.compiles_s(row, times == 0)}
        for number, point in enumerate(row.curve, start=1):
            if (ended := on_block(_event(point))) is not None:
                cost_s -= sum(p.seconds for p in row.curve[number:])
                measurement = _cut(measurement, number, ended)
                break
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

    def time_left_s(self) -> float | None:
        """Return what is left of the budget."""
        return None if self.config.budget is None else self.config.budget - self.clock.now_s

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


MakeSampler = Callable[[StudyConfig, Half, int], BaseSampler]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to search: its sampler, by config, table and seed, and settings of its own."""

    make_sampler: MakeSampler
    settings: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replay:
    """What one search came to.

    `chosen` is each profile's config, the baseline where nothing may be exported; `trace` has the
    device-seconds and the `balanced` config after each trial; `ooms` counts trials that ran out of
    memory on the device.
    """

    chosen: dict[str, HardwareConfig]
    device_s: float
    trials: int
    ooms: int
    trace: tuple[tuple[float, HardwareConfig], ...]


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
    trace: list[tuple[float, HardwareConfig]] = []
    if traced:
        session.on_record = lambda: trace.append(
            (session.clock.now_s, _exported(session)["balanced"])
        )
    heartbeat: Any = NoHeartbeat()
    search(session, heartbeat)
    with suppress(ExportRefused):
        confirm(session)
    records = session.records()
    return Replay(
        chosen=_exported(session),
        device_s=session.clock.now_s,
        trials=len({r.trial for r in records}),
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
        sampler=method.make_sampler(config, half, seed),
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


@dataclass(frozen=True, slots=True)
class Worth:
    """What a profile wants: its figure for every config that works, and how wide a tie is."""

    figures: dict[HardwareConfig, float]
    tie: float


def worths(half: Half, method: Method) -> dict[str, Worth]:
    """Return what each profile wants, from every measurement of a half.

    `balanced` wants the composite, `max_gpu` utilisation (percent) and `max_quality` quality; of
    these two a config that does not meet the constraint is worth the least of those that do.
    """
    records, _, measured = judged(half, method)
    summaries = [s for s in summarise(records, with_intervals=False) if s.eligible]
    baseline = next(s for s in summaries if s.config == measured)
    floor = QUALITY_FLOOR * (baseline.quality_score or 0.0)
    busy = BUSY_SHARE * max(s.device_util or 0.0 for s in summaries)
    wanted = {
        "balanced": ("final_score", lambda s: True, tie_width(records) or 0.0),
        "max_gpu": ("device_util", lambda s: (s.quality_score or 0.0) >= floor, UTIL_TIE),
        "max_quality": (
            "quality_score",
            lambda s: (s.device_util or 0.0) > busy,
            2 * (baseline.quality_score_sd or 0.0),
        ),
    }
    return {
        name: Worth(_figures(summaries, figure, meets), tie)
        for name, (figure, meets, tie) in wanted.items()
    }


def judged(half: Half, method: Method) -> tuple[list[TrialRecord], References, HardwareConfig]:
    """Return every measurement of a half, judged; what by; and the baseline, as trial 0."""
    session = calibrated(half, method, seed=0, budget_s=None)
    references, baseline = _references(session), session.config.baseline
    if baseline is None:
        raise ValueError("a calibrated study must have a baseline")
    records = []
    for number, (config, rows) in enumerate(half.rows.items(), start=1):
        for replicate, row in enumerate(rows):
            trial = 0 if config == baseline else number
            record = replace(row.record, trial=trial, replicate=replicate)
            records.append(judge(replace(row, record=record), references))
    return records, references, baseline


def _figures(
    summaries: Sequence[ConfigSummary], figure: str, meets: Callable[[ConfigSummary], bool]
) -> dict[HardwareConfig, float]:
    known = {s.config: getattr(s, figure) or 0.0 for s in summaries}
    least = min((known[s.config] for s in summaries if meets(s)), default=0.0)
    return {s.config: known[s.config] if meets(s) else least for s in summaries}


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
        return dict.fromkeys(PROFILES, baseline)
    return {name: choices[name].summary.config for name in PROFILES}


def outcome_of(record: TrialRecord) -> Outcome:
    """Return how a recorded trial ended."""
    if record.status == "success":
        return Completed(record.reason)
    return _FAILURES[record.status](record.reason or "as recorded")


def _compile_s(row: Measurement) -> float:
    return row.record.phases.get("compile", 0.0)


def _exported(session: Session) -> dict[str, HardwareConfig]:
    references, baseline = _references(session), session.config.baseline
    if baseline is None:
        raise ValueError("a calibrated study must have a baseline")
    return chosen(session.records(), references, baseline, session.config.min_feasible)


def _references(session: Session) -> References:
    if session.references is None:
        raise ValueError("a study must be calibrated before its profiles are chosen")
    return session.references


def _event(point: CurvePoint) -> Event:
    names = ("metrics", "learning", "env_steps", "seconds")
    return Event("block", 0.0, {name: getattr(point, name) for name in names})


def _cut(measurement: Measurement, blocks: int, ended: Outcome) -> Measurement:
    """Return a measurement that was stopped after so many blocks."""
    status = ended.status if isinstance(ended, Pruned) else measurement.record.status
    return replace(
        measurement,
        record=replace(measurement.record, status=status, reason=ended.reason, mean_return=None),
        curve=measurement.curve[:blocks],
        evaluation=None,
        outcome=ended,
    )
