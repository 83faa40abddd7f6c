"""When a run has settled: which timed blocks count, and whether the rate still drifts.

Apart from the throughput because it asks another question. Caches, clocks and the first real data
make the first blocks unlike the rest even after a warm-up, and a device that heats up never stops
changing: neither is assumed away, both are looked for.
"""

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_BLOCKS = 8
"""With fewer blocks a settling phase cannot be told from noise."""
SHIFT = 0.02
"""Relative change below which a settling phase or a drift does not matter."""
SIGNIFICANT = 2.5
"""Standard errors beyond which a drift is no accident."""
BEST_OF_MANY = 3.5
"""Standard errors for a cut, which is the most striking of many."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Which blocks count and what the rate does over them.

    `drift` is the relative change of the mean rate from their first to their second half, `None`
    with too few of them.
    """

    first_block: int
    drift: float | None
    is_steady: bool


def find_steady(rates: Sequence[float]) -> Steadiness:
    """Return where the blocks have settled and whether they go on drifting.

    The cut is the one with the least standard error of the remaining mean (MSER, White 1997, An
    effective truncation heuristic), in the first half, as that paper limits it. It is made only
    where the blocks before it differ from the rest by more than 2 % and more than noise explains,
    because among steady blocks the rule would throw some away at random.

    Args:
        rates: env-steps per second of each block, in the order in which they ran.
    """
    first = _cut(rates)
    drift, error = _drift(rates[first:])
    moves = drift is not None and abs(drift) > max(SHIFT, SIGNIFICANT * error)
    return Steadiness(first, drift, not moves)


def _cut(rates: Sequence[float]) -> int:
    if len(rates) < MIN_BLOCKS:
        return 0
    cut = min(range(len(rates) // 2 + 1), key=lambda first: _squared_error(rates[first:]))
    if cut == 0:
        return 0
    before, rest = rates[:cut], rates[cut:]
    shift = abs(statistics.fmean(before) / statistics.fmean(rest) - 1)
    error = (variance_of_sums(rest) * (1 / len(before) + 1 / len(rest))) ** 0.5
    is_settling = shift > max(SHIFT, BEST_OF_MANY * error / statistics.fmean(rest))
    return cut if is_settling else 0


def variance_of_sums(rates: Sequence[float]) -> float:
    """Return the variance that a block adds to a sum of blocks, neighbours being alike.

    s² · (1 + ρ) / (1 − ρ) for a first-order autoregression, ρ being the correlation of neighbours
    with the correction (1 + 4ρ) / n for its bias (Marriott and Pope 1954), held to [0, 0.9].
    """
    variance, number = statistics.variance(rates), len(rates)
    if variance == 0.0:
        return 0.0
    mean = statistics.fmean(rates)
    products = sum((one - mean) * (next_ - mean) for one, next_ in itertools.pairwise(rates))
    alike = products / (variance * (number - 1))
    alike = min(0.9, max(0.0, alike + (1 + 4 * alike) / number))
    return variance * (1 + alike) / (1 - alike)


def _squared_error(rates: Sequence[float]) -> float:
    return statistics.pvariance(rates) / len(rates)


def _drift(rates: Sequence[float]) -> tuple[float | None, float]:
    """Return the relative change between the halves and its standard error.

    The error is that of what a straight line leaves: a drift is no noise.
    """
    if len(rates) < MIN_BLOCKS // 2:
        return None, 0.0
    half = len(rates) // 2
    mean = statistics.fmean(rates)
    slope, intercept = statistics.linear_regression(range(len(rates)), rates)
    rest = [rate - slope * number - intercept for number, rate in enumerate(rates)]
    error = (variance_of_sums(rest) * (1 / half + 1 / (len(rates) - half))) ** 0.5
    return (statistics.fmean(rates[half:]) - statistics.fmean(rates[:half])) / mean, error / mean
