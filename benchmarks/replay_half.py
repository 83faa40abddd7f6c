"""A recorded table in two halves, to search on and to judge by, and what a measurement costs."""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grid import Grid

from storage.records import TrialRecord
from tuner.aggregate import hardware_of
from tuner.measurement import Measurement
from tuner.outcome import Completed, Crashed, Diverged, Outcome, OutOfMemory, TimedOut
from tuner.space import HardwareConfig

_FAILURES: dict[str, Callable[[str], Outcome]] = {
    "crashed": Crashed,
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
    """Return the half of the even repeats and that of the odd ones: one is searched, one judges."""
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


def outcome_of(record: TrialRecord) -> Outcome:
    """Return how a recorded trial ended."""
    if record.status == "success":
        return Completed(record.reason)
    return _FAILURES[record.status](record.reason or "as recorded")


def _compile_s(row: Measurement) -> float:
    return row.record.phases.get("compile", 0.0)
