"""What a search of one table may expect by the others: so that none is searched by its own answer.

The slopes of `tuner/search/expectation.py` were chosen on some of these tables. Here they are
fitted to all tables but the one that is searched.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from grid import Grid
from replay_half import halves
from replay_judge import judged
from replay_methods import METHODS, NEVER, expecting
from replay_study import Method

from tuner.aggregate import hardware_of
from tuner.score import FULL_UTIL
from tuner.search.expectation import PRIORS, Prior, Priors, points_of
from tuner.space import HardwareConfig

LEFT_OUT = "structured_left_out"
"""The name of the method: ours, expecting what all other tables would have one expect."""

Values = list[tuple[HardwareConfig, float]]


def left_out(others: Sequence[Grid]) -> Method:
    """Return the method for a table, fitted to the `others`."""
    return Method(partial(expecting, fitted(others)), {"patience": NEVER})


def fitted(grids: Sequence[Grid]) -> Priors:
    """Return priors with the mean of the slopes that fit each table best, by least squares."""
    by_table = [slopes_of(grid) for grid in grids]
    slopes = {
        name: tuple(np.mean([slopes[name] for slopes in by_table], axis=0).tolist())
        for name in ("util", "quality", "log_sps")
    }
    return Priors(
        _with(PRIORS.util, slopes["util"]),
        _with(PRIORS.quality, slopes["quality"]),
        _with(PRIORS.log_sps, slopes["log_sps"]),
    )


def slopes_of(grid: Grid) -> dict[str, list[float]]:
    """Return what each part of the score changes by with every doubling, over a whole table."""
    values: dict[str, Values] = {"util": [], "quality": [], "log_sps": []}
    for half in halves(grid):
        for record in judged(half, METHODS["grid"])[0]:
            config = hardware_of(record)
            if record.device_util is not None:
                values["util"].append((config, record.device_util / FULL_UTIL))
            if record.quality_score is not None:
                values["quality"].append((config, record.quality_score))
            if record.sps:
                values["log_sps"].append((config, math.log2(record.sps)))
    return {name: _least_squares(known) for name, known in values.items()}


def _least_squares(known: Values) -> list[float]:
    points = points_of([config for config, _ in known])
    targets = np.array([value for _, value in known])
    # A dimension that does not vary gets no slope: the shortest solution is taken.
    found = np.linalg.lstsq(points - points.mean(axis=0), targets - targets.mean(), rcond=None)[0]
    return [float(slope) for slope in found]


def _with(prior: Prior, slopes: tuple[float, ...]) -> Prior:
    return replace(prior, slopes=slopes)
