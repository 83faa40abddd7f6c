"""What do recorded tables let one expect of a config, part by part of its score?

    .venv/bin/python benchmarks/priors.py --out benchmarks/results/<device>

Of every table of `benchmarks/grids`: by least squares the slope of each part over the doublings of
minibatch, batch, epochs and environments; the standard deviations of what is left, and between
measurements of one config; and over how many doublings what is left is alike, by likelihood. What
they come to on average is what `tuner/search/expectation.py` expects on a CPU. `replay.py --methods
structured_left_out` expects what all tables but the one that is searched come to.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import optuna
from grid import Grid, add_grids, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, this_device
from replay_half import halves
from replay_judge import judged
from replay_methods import METHODS, NEVER, expecting
from replay_study import Method

from tuner.aggregate import hardware_of
from tuner.score import FULL_UTIL
from tuner.search.expectation import Prior, Priors, points_of
from tuner.search.model import Array, matern
from tuner.space import HardwareConfig

optuna.logging.set_verbosity(optuna.logging.ERROR)

LEFT_OUT = "structured_left_out"
"""The name of the method: ours, expecting what all other tables would have one expect."""
PARTS = ("util", "quality", "log_sps")
LENGTHS = tuple(2.0 ** (n / 2) for n in range(9))
"""Doublings over which configs may be alike, 1 to 16."""
RATES_LENGTH = {"util": 100.0, "quality": 1.5, "log_sps": 100.0}
"""Likewise for learning rates, of which tables have one: as is supposed."""
LEAST_NOISE = 0.01
"""Of the variance of what is left: measurements of a table's configs always differ by something."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a table says of one part of the score.

    `slopes` are in the order of `Prior.slopes`, without that of the learning rate; `deviation` is
    of what they leave, `noise` of one measurement of a config; `length` is in doublings.
    """

    slopes: tuple[float, ...]
    deviation: float
    noise: float
    length: float


def main() -> None:
    """Fit, print and, if asked, write."""
    parser = parser_of(__doc__)
    add_grids(parser)
    arguments = parser.parse_args()
    fits = {name_of(table): fits_of(read_grid(table)) for table in tables_of(parser, arguments)}
    document = facts(this_device()) | {
        "tables": {
            name: {part: asdict(fit) for part, fit in parts.items()} for name, parts in fits.items()
        },
        "mean": {part: asdict(fit) for part, fit in mean_of(fits.values()).items()},
    }
    deliver(document, in_words(document), arguments)


def left_out(others: Sequence[Grid]) -> Method:
    """Return the method for a table, fitted to the `others`."""
    return Method(partial(expecting, priors_of(others)), {"patience": NEVER})


def priors_of(grids: Sequence[Grid]) -> Priors:
    """Return what tables on average let one expect."""
    mean = mean_of([fits_of(grid) for grid in grids])
    return Priors(**{part: _prior(part, fit) for part, fit in mean.items()})


def fits_of(grid: Grid) -> dict[str, Fit]:
    """Return the fit of each part to a whole table."""
    values: dict[str, dict[HardwareConfig, list[float]]] = {part: {} for part in PARTS}
    for half in halves(grid):
        for record in judged(half, METHODS["grid"])[0]:
            known = {
                "util": None if record.device_util is None else record.device_util / FULL_UTIL,
                "quality": record.quality_score,
                "log_sps": math.log2(record.sps) if record.sps else None,
            }
            for part, value in known.items():
                if value is not None:
                    values[part].setdefault(hardware_of(record), []).append(value)
    return {part: fit_of(known) for part, known in values.items()}


def fit_of(values: dict[HardwareConfig, list[float]]) -> Fit:
    """Return the fit to the measured values of each config."""
    points = points_of(list(values))[:, :-1]
    means = np.array([statistics.fmean(known) for known in values.values()])
    number = statistics.fmean(len(known) for known in values.values())
    variances = [statistics.variance(known) for known in values.values() if len(known) > 1]
    noise = statistics.fmean(variances) if variances else 0.0
    centred = points - points.mean(axis=0)
    # A dimension that does not vary gets no slope: the shortest solution is taken.
    slopes = np.linalg.lstsq(centred, means - means.mean(), rcond=None)[0]
    rest = means - means.mean() - centred @ slopes
    length = max(
        LENGTHS, key=lambda doublings: _likelihood(points, rest, doublings, noise / number)
    )
    return Fit(tuple(float(slope) for slope in slopes), float(rest.std()), math.sqrt(noise), length)


def _likelihood(points: Array, rest: Array, length: float, noise: float) -> float:
    """Return the log likelihood of what slopes leave, were it alike over so many doublings."""
    alike = matern(points, points, np.full(points.shape[1], length))
    covariance = rest.var() * alike + max(noise, LEAST_NOISE * rest.var()) * np.eye(len(rest))
    solved = np.linalg.solve(covariance, rest)
    return float(-0.5 * rest @ solved - 0.5 * np.linalg.slogdet(covariance)[1])


def mean_of(fits: Iterable[dict[str, Fit]]) -> dict[str, Fit]:
    """Return the mean fit of each part: of variances, and of the logarithms of lengths."""
    tables = list(fits)
    return {part: _mean([table[part] for table in tables]) for part in PARTS}


def _mean(fits: Sequence[Fit]) -> Fit:
    return Fit(
        tuple(np.mean([fit.slopes for fit in fits], axis=0).tolist()),
        math.sqrt(statistics.fmean(fit.deviation**2 for fit in fits)),
        math.sqrt(statistics.fmean(fit.noise**2 for fit in fits)),
        statistics.geometric_mean(fit.length for fit in fits),
    )


def _prior(part: str, fit: Fit) -> Prior:
    return Prior(
        (*fit.slopes, 0.0),
        (*[fit.length] * len(fit.slopes), RATES_LENGTH[part]),
        doubt=fit.deviation,
        noise=max(LEAST_NOISE, (fit.noise / fit.deviation) ** 2),
    )


def in_words(document: dict[str, Any]) -> str:
    """Return the table of all fits."""
    lines = [
        "utilisation as a share of what counts as full, quality, and log2 of env-steps/s: change "
        "with every doubling, standard deviations of the rest and of one measurement",
        f"{'table':16s} {'part':8s} {'minibatch':>9s} {'batch':>6s} {'epochs':>6s} {'envs':>6s} "
        f"{'rest':>6s} {'noise':>6s} {'alike over':>11s}",
    ]
    for name, parts in [*document["tables"].items(), ("mean", document["mean"])]:
        for part, fit in parts.items():
            minibatch, *others = fit["slopes"]
            lines.append(
                f"{name:16s} {part:8s} {minibatch:9.3f} "
                + " ".join(f"{slope:6.3f}" for slope in others)
                + f" {fit['deviation']:6.3f} {fit['noise']:6.3f} {fit['length']:6.1f} ×2"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
