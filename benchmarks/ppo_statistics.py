"""The arithmetic of the PPO benchmarks: ratios over rounds, quartiles, interquartile means.

Apart from the benchmarks so that it can be tested without running one. Standard library only.
"""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some numbers and its quartiles."""

    median: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic with the bounds of its bootstrap interval."""

    value: float
    lower: float
    upper: float


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles (both ends count as quantiles 0 and 1).

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("values must hold at least one number, but got none; measure a round")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper)


def best_of(rates: dict[str, list[float]]) -> str:
    """Return the name of the peer with the highest median rate over its rounds."""
    return max(rates, key=lambda name: statistics.median(rates[name]))


def round_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours ÷ theirs round by round.

    Raises:
        ValueError: The two were not measured in the same number of rounds.
    """
    if len(ours) != len(theirs):
        raise ValueError(
            f"both must have the same number of rounds, but got {len(ours)} and {len(theirs)}; "
            f"alternate them"
        )
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]


def interquartile_mean(values: Sequence[float]) -> float:
    """Return the mean without the lowest and the highest quarter (arXiv 2108.13264).

    A quarter is rounded down to whole values, so that three values are all kept.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("values must hold at least one number, but got none; train a seed")
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def relative(ours: float, theirs: float) -> float:
    """Return 1 + (ours − theirs) / |theirs|: the ratio, made to rise with ours below zero too.

    Equals ours ÷ theirs for positive returns; 0.9 means 10 % of theirs worse, whatever the sign.
    NaN where theirs is 0.
    """
    return 1 + (ours - theirs) / abs(theirs) if theirs else math.nan


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Return the interquartile mean of seeds with a percentile bootstrap interval."""
    pick = random.Random(seed)
    resampled = [interquartile_mean(_resample(values, pick)) for _ in range(RESAMPLES)]
    return _estimate(interquartile_mean(values), resampled)


def bootstrap_relative(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0
) -> Estimate:
    """Return `relative` of the two interquartile means, resampling both groups of seeds."""
    pick = random.Random(seed)
    resampled = [
        relative(
            interquartile_mean(_resample(ours, pick)), interquartile_mean(_resample(theirs, pick))
        )
        for _ in range(RESAMPLES)
    ]
    return _estimate(relative(interquartile_mean(ours), interquartile_mean(theirs)), resampled)


def best_seconds(
    run: Callable[[], object], clock: Callable[[], float], *, budget_s: float
) -> float:
    """Return the least time of a run among repetitions that fill `budget_s`; at least three.

    The least, because whatever disturbs a run makes it slower and nothing makes it faster.
    """
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget_s:
        started = clock()
        run()
        times.append(clock() - started)
    return min(times)


def _resample(values: Sequence[float], pick: random.Random) -> list[float]:
    return pick.choices(values, k=len(values))


def _estimate(value: float, resampled: list[float]) -> Estimate:
    known = sorted(x for x in resampled if not math.isnan(x))
    if not known:
        return Estimate(value, math.nan, math.nan)
    tail = (1 - CONFIDENCE) / 2
    return Estimate(value, _quantile(known, tail), _quantile(known, 1 - tail))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
