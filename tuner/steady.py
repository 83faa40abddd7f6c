"""When a run has settled: which timed blocks count, and whether the rate still drifts.

Apart from the throughput because it asks another question. Caches, clocks and the first real data
make the first blocks unlike the rest even after a warm-up, and a device that heats up never stops
changing: neither is assumed away, both are looked for.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MIN_BLOCKS = 8
"""With fewer blocks a settling phase cannot be told from noise."""
SHIFT = 0.02
"""Relative change below which a settling phase or a drift does not matter."""
SIGNIFICANT = 2.2
"""Standard errors beyond which a drift is no accident: 95 % for 10 degrees of freedom."""
BEST_OF_MANY = 3.5
"""Standard errors for a cut, the most striking of many: one steady run in a hundred is cut."""


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
    error = (statistics.variance(rest) * (1 / len(before) + 1 / len(rest))) ** 0.5
    is_settling = shift > max(SHIFT, BEST_OF_MANY * error / statistics.fmean(rest))
    return cut if is_settling else 0


def _squared_error(rates: Sequence[float]) -> float:
    return statistics.pvariance(rates) / len(rates)


def _drift(rates: Sequence[float]) -> tuple[float | None, float]:
    """Return the relative change between the halves and its standard error."""
    if len(rates) < MIN_BLOCKS // 2:
        return None, 0.0
    halves = rates[: len(rates) // 2], rates[len(rates) // 2 :]
    mean = statistics.fmean(rates)
    error = sum(statistics.variance(half) / len(half) for half in halves) ** 0.5
    return (statistics.fmean(halves[1]) - statistics.fmean(halves[0])) / mean, error / mean
