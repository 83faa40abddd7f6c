"""What is still to be had: how much the best untried config is expected to raise the score.

Apart from `tuner.stopping`, which is asked whether it is too little, because a report says it
however a search has ended. The figure is made from the table alone: the same after a resume.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.records import TrialRecord
from tuner.aggregate import ConfigSummary, summarise
from tuner.goal import objective_of
from tuner.search.known import fitting_of
from tuner.space import HardwareConfig, SearchSpace

Array = NDArray[np.float64]
FEWEST = 8
"""Scored configs below which nothing is said: a length for each coordinate must be fitted."""
MOST = 400
"""Configs that are modelled; of more the best ones, as what is near them matters most."""
REACH = 6.0
"""Standard deviations beyond which nothing is to be had."""
STEPS = 400


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a model of the scored configs expects of the untried ones.

    `gain` is by how much the best of `num_untried` configs is expected to exceed `best`, the score
    of the best config so far; `num_scored` configs tell it.
    """

    gain: float
    best: float
    num_scored: int
    num_untried: int

    @property
    def share(self) -> float:
        """The gain as a share of the best score."""
        return self.gain / self.best

    def __str__(self) -> str:
        number = self.num_untried
        which = "the one untried config" if number == 1 else f"the best of {number} untried configs"
        return (
            f"{percent(self.share)} of the score by {which}, as a model of the {self.num_scored} "
            "scored ones expects"
        )


def percent(share: float) -> str:
    """Return a share in percent, as precise as one can mean it; rounded down.

    A share below a limit of so many tenths of a percent is never shown as that limit.
    """
    return "less than 0.1 %" if share < 0.001 else f"{math.floor(1000 * share) / 10:.1f} %"


def in_words(records: Sequence[TrialRecord], space: SearchSpace) -> str:
    """Return what is believed still to be had, or why that is not known."""
    left = outlook(records, space)
    if left is not None:
        return str(left)
    tried, untried = _tried_and_untried(records, space)
    if not untried:
        return "nothing in this space: every config that may fit was tried"
    number = len(_scored(tried))
    if number < FEWEST:
        return f"not known: a model of it needs {FEWEST} scored configs, and there are {number}"
    return "not known: no config has a score above 0"


def outlook(records: Sequence[TrialRecord], space: SearchSpace) -> Outlook | None:
    """Return what is believed still to be had, None where the table tells too little.

    Gains are counted from the best eligible config. Untried are configs without a measurement that
    ran or was refused, without those that take no less memory than one that ran out of it; one that
    was interrupted is untried.
    """
    tried, untried = _tried_and_untried(records, space)
    scored = sorted(_scored(tried), key=_score, reverse=True)
    eligible = [s for s in scored if s.eligible] or scored
    if len(scored) < FEWEST or not untried or _score(eligible[0]) <= 0:
        return None
    from tuner.search.surrogate import Scale, Surrogate  # scipy: not for too small a table

    modelled = scored[:MOST]
    model = Surrogate(
        Scale.of(space),
        [summary.config for summary in modelled],
        np.array([_score(summary) for summary in modelled]),
        [summary.sps for summary in modelled],
    )
    # Where the best was lucky, more is to be had beyond what it is worth than beyond what it got.
    believed, _ = model.predict([summary.config for summary in eligible[:MOST]])
    gain = expected_excess(*model.predict(untried), float(believed.max()))
    return Outlook(gain, _score(eligible[0]), len(scored), len(untried))


def _tried_and_untried(
    records: Sequence[TrialRecord], space: SearchSpace
) -> tuple[list[ConfigSummary], list[HardwareConfig]]:
    tried = [s for s in summarise(records, with_intervals=False) if s.status != "interrupted"]
    known = {summary.config for summary in tried}
    return tried, fitting_of([c for c in space.configs() if c not in known], records)


def _scored(summaries: Sequence[ConfigSummary]) -> list[ConfigSummary]:
    return [summary for summary in summaries if objective_of(summary) is not None]


def _score(summary: ConfigSummary) -> float:
    return objective_of(summary) or 0.0


def expected_excess(mean: Array, deviation: Array, best: float) -> float:
    """Return by how much the highest of several uncertain values is expected to exceed `best`.

    The integral over t > best of 1 − Π Φ((t − mean) / deviation). The values are taken to be
    independent: neighbours that rise together exceed it by less.
    """
    from scipy.special import log_ndtr

    top = max(best, float((mean + REACH * deviation).max()))
    t = np.linspace(best, top, STEPS)
    below = log_ndtr((t[:, None] - mean) / deviation).sum(axis=1)
    return float(np.trapezoid(-np.expm1(below), t))
