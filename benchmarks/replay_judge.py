"""What the half of a table that was not searched says of the config that a search exports."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from grid import Grid
from replay_half import Half, halves
from replay_methods import METHODS
from replay_study import Method, calibrated, chosen, references_of

from storage.records import TrialRecord
from tuner.aggregate import ConfigSummary, summarise
from tuner.finalists import contest_of, tie_width
from tuner.profile_rules import UTIL_TIE
from tuner.profiles import PROFILE_NAMES
from tuner.references import References, judge
from tuner.space import HardwareConfig


@dataclass(frozen=True, slots=True)
class Worth:
    """What a profile wants: its figure for every config that works, and how wide a tie is."""

    figures: dict[HardwareConfig, float]
    tie: float

    def of(self, config: HardwareConfig) -> float:
        """Return a config's figure, the least one if it did not work."""
        return self.figures.get(config, min(self.figures.values()))


def worths(
    records: Sequence[TrialRecord], references: References, *, epsilon: float | None = None
) -> dict[str, Worth]:
    """Return what each profile wants, from judged measurements.

    `balanced` wants the composite, `max_gpu` utilisation (percent) and `max_quality` quality; of
    these two a config that does not meet the constraint is worth the least of those that do. Ties
    are as wide as the rules have them, for means of as many as most configs have: ε is two standard
    deviations of one measurement, by the repeats among `records` unless it is given.
    """
    rules = contest_of(records, references, min_feasible=1).rules
    summaries = [s for s in summarise(records, with_intervals=False) if s.eligible]
    luck = 1 / math.sqrt(statistics.median_low(s.replicates for s in summaries))
    wanted: dict[str, tuple[str, Callable[[ConfigSummary], bool], float]] = {
        "balanced": (
            "final_score",
            lambda s: True,
            luck * (rules.epsilon if epsilon is None else epsilon),
        ),
        "max_gpu": (
            "device_util",
            lambda s: (s.quality_score or 0.0) >= (rules.quality_floor or 0.0),
            UTIL_TIE,
        ),
        "max_quality": (
            "quality_score",
            lambda s: (s.device_util or 0.0) > (rules.util_limit or 0.0),
            luck * rules.quality_tie,
        ),
    }
    return {
        name: Worth(_figures(summaries, figure, meets), tie)
        for name, (figure, meets, tie) in wanted.items()
    }


def both_ways(grid: Grid) -> list[tuple[Half, "Judge"]]:
    """Return each half of a table with the judge of what is found on it."""
    one, other = halves(grid)
    return [(one, Judge.of(one, other)), (other, Judge.of(other, one))]


def judged(half: Half, method: Method) -> tuple[list[TrialRecord], References, HardwareConfig]:
    """Return every measurement of a half, judged; what by; and the baseline, as trial 0."""
    session = calibrated(half, method, seed=0, budget_s=None)
    references, baseline = references_of(session), session.config.baseline
    if baseline is None:
        raise ValueError("a calibrated study must have a baseline")
    return records_of(half, references, baseline), references, baseline


def records_of(half: Half, references: References, baseline: HardwareConfig) -> list[TrialRecord]:
    """Return every measurement of a half, judged by some references; the baseline is trial 0."""
    records = []
    for number, (config, rows) in enumerate(half.rows.items(), start=1):
        for replicate, row in enumerate(rows):
            trial = 0 if config == baseline else number
            record = replace(row.record, trial=trial, replicate=replicate)
            records.append(judge(replace(row, record=record), references))
    return records


def _figures(
    summaries: Sequence[ConfigSummary], figure: str, meets: Callable[[ConfigSummary], bool]
) -> dict[HardwareConfig, float]:
    known = {s.config: getattr(s, figure) or 0.0 for s in summaries}
    least = min((known[s.config] for s in summaries if meets(s)), default=0.0)
    return {s.config: known[s.config] if meets(s) else least for s in summaries}


@dataclass(frozen=True, slots=True)
class Judge:
    """Says what exporting a config costs, by the half that was not searched.

    `best` is the worth of what all measurements of the half that is searched would export, `median`
    the median config's; `is_tied` where the two cannot be told apart. `seen` is what the searched
    half says of `balanced`, of those of its `configs` that worked.
    """

    baseline: HardwareConfig
    configs: tuple[HardwareConfig, ...]
    seen: dict[HardwareConfig, float]
    worths: dict[str, Worth]
    best: dict[str, float]
    median: dict[str, float]
    is_tied: dict[str, bool]

    @classmethod
    def of(cls, searched: Half, judging: Half) -> "Judge":
        """Return the judge of a table."""
        records, references, baseline = judged(searched, METHODS["grid"])
        everything = chosen(records, references, baseline, min_feasible=1)
        judges, scale, _ = judged(judging, METHODS["grid"])
        # Both halves tell how wide a tie is: where each has one measurement, neither can alone.
        both = [*judges, *records_of(searched, scale, baseline)]
        found = worths(judges, scale, epsilon=tie_width(both))
        best = {name: found[name].of(everything[name]) for name in PROFILE_NAMES}
        median = {name: statistics.median(found[name].figures.values()) for name in PROFILE_NAMES}
        return cls(
            baseline=baseline,
            configs=tuple(searched.rows),
            seen=worths(records, references)["balanced"].figures,
            worths=found,
            best=best,
            median=median,
            is_tied={n: best[n] - median[n] <= found[n].tie for n in PROFILE_NAMES},
        )

    def regret(self, profile: str, config: HardwareConfig) -> float | None:
        """Return (best − chosen) / (best − median), below 0 where luck chose better.

        None where all are tied. A config that did not work again is worth the least.
        """
        if self.is_tied[profile]:
            return None
        best, worth = self.best[profile], self.worths[profile].of(config)
        return (best - worth) / (best - self.median[profile])

    def gap_in_ties(self, profile: str) -> float:
        """Return how many ties the best lies above the median config; inf without any noise."""
        gap, tie = self.best[profile] - self.median[profile], self.worths[profile].tie
        if tie == 0.0:
            return math.inf if gap > 0.0 else 0.0
        return gap / tie

    def random_regret(self, trials: int) -> float | None:
        """Return what so many trials at random, baseline included, are expected to come to.

        Exactly, for `balanced`, as if each told what all its measurements do and the highest score
        were exported: without noise, and without the rule between ties.
        """
        if self.is_tied["balanced"]:
            return None
        others = [config for config in self.configs if config != self.baseline]
        least = self.seen.get(self.baseline, -math.inf)
        better = sorted(
            (c for c in others if self.seen.get(c, -math.inf) > least), key=lambda c: -self.seen[c]
        )
        drawn = min(trials - 1, len(others))
        shares = [
            # It is drawn, and so is none before it: the other draws are from what comes after.
            math.comb(len(others) - place - 1, drawn - 1) / math.comb(len(others), drawn)
            for place in range(len(better) if drawn > 0 else 0)
        ]
        last = (1 - sum(shares), self.baseline)
        return sum(
            share * (self.regret("balanced", config) or 0.0)
            for share, config in [*zip(shares, better, strict=False), last]
        )
