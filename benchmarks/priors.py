"""What do recorded tables let one expect of a config, part by part of its score?

    .venv/bin/python benchmarks/priors.py --out benchmarks/results/<device>

Of every table of `benchmarks/grids`, by least squares: the curve along which quality saturates with
gradient steps, equally steep in all; the slope of each part, beside that, over the doublings of
minibatch, batch, epochs and environments; the standard deviations of what is left, and between
measurements of one config; and over how many doublings what is left is alike, by likelihood. What
they come to on average over environments, and by how much these differ, is what
`tuner/search/priors.py` has for a CPU.
`replay.py --methods structured_left_out` expects what the tables of other environments come to.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import optuna
from grid import Grid, add_grids, environment_of, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, this_device
from replay_half import Half, halves
from replay_judge import judged
from replay_methods import LEFT_OUT, METHODS, NEVER, expecting
from replay_study import Method
from scipy.optimize import least_squares

from storage.records import TrialRecord
from tuner.aggregate import hardware_of, that_count
from tuner.score import FULL_UTIL
from tuner.search.model import Array, matern
from tuner.search.priors import (
    ANY,
    GRADIENT_STEPS,
    NUM_SLOPES,
    PRIORS,
    Curve,
    Prior,
    Priors,
    points_of,
)
from tuner.space import HardwareConfig

optuna.logging.set_verbosity(optuna.logging.ERROR)

PARTS = ("util", "quality", "log_sps")
LENGTHS = tuple(2.0 ** (n / 2) for n in range(9))
"""Doublings over which configs may be alike, 1 to 16."""
RATES_LENGTH = {"util": ANY, "quality": 1.5, "log_sps": ANY}
"""Likewise for learning rates, of which tables have one: as is supposed."""
TRUSTED = {"util": 0.5, "quality": 0.5, "log_sps": 1.0}
"""Shares of the slopes over whole tables that a search expects. Parts that have an end are flatter
near it, where the best configs are. While quality had slopes alone, of 1, ¾, ½ and ¼ a half left
the least regret on the tables of five environments, each searched with the expectations of the
others; on those of any four of them, too, but that without trading ¾ did as well."""
LEAST_SHARE = 0.01
"""That signal has of what is left, and noise of the signal: nothing is without either."""
MOST_DOUBT = 10.0
"""Of slopes, as a share of what is left beside them: of tables that are exactly linear."""
LOG_STEEPEST = 1.5
"""How steep and how flat a curve may be: four and a half times 1, and as much less."""
TINY = 1e-12
"""Variance of what does not differ at all."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a table says of one part of the score.

    `slopes` are in the order of `Prior.slopes`, beside a level or beside one times `curve`;
    `deviation` is of what configs truly differ by beside both, `noise` of one measurement of a
    config; they are alike over `length` doublings of what slopes are of, or, where there is a
    curve, of all that but the minibatch, and over `steps_length` of gradient steps.
    """

    slopes: tuple[float, ...]
    deviation: float
    noise: float
    length: float
    steps_length: float | None = None
    curve: Curve | None = None


def main() -> None:
    """Fit, print and, if asked, write."""
    parser = parser_of(__doc__)
    add_grids(parser)
    arguments = parser.parse_args()
    grids = {name_of(table): read_grid(table) for table in tables_of(parser, arguments)}
    fits = dict(zip(grids, fits_around_curves(list(grids.values())), strict=True))
    environments = by_environment(list(grids.values()), list(fits.values()))
    document = facts(this_device()) | {
        "tables": {
            name: {part: asdict(fit) for part, fit in parts.items()} for name, parts in fits.items()
        },
        "mean": {part: asdict(fit) for part, fit in mean_of(environments).items()},
        "slopes_apart": slopes_apart(environments),
        "expected": asdict(priors_of(list(grids.values()))),
    }
    deliver(document, in_words(document), arguments)


def left_out(others: Sequence[Grid]) -> Method:
    """Return the method for a table, fitted to the `others`.

    Raises:
        ValueError: there are none.
    """
    if not others:
        raise ValueError(f"{LEFT_OUT} must have tables of two environments, but got one")
    return Method(partial(expecting, priors_of(others)), {"patience": NEVER})


def priors_of(grids: Sequence[Grid]) -> Priors:
    """Return what the tables of some environments on average let one expect."""
    fits = by_environment(grids, fits_around_curves(grids))
    apart = slopes_apart(fits)
    return Priors(
        **{
            part: _prior(part, fit, None if apart is None else apart[part])
            for part, fit in mean_of(fits).items()
        }
    )


def by_environment(grids: Sequence[Grid], fits: Sequence[dict[str, Fit]]) -> list[dict[str, Fit]]:
    """Return the fits of each environment, the mean over its tables where it has several."""
    groups: dict[str, list[dict[str, Fit]]] = {}
    for grid, fit in zip(grids, fits, strict=True):
        groups.setdefault(environment_of(grid), []).append(fit)
    return [mean_of(tables) for tables in groups.values()]


def fits_around_curves(grids: Sequence[Grid]) -> list[dict[str, Fit]]:
    """Return the fits of tables, each around a curve with a half of its own, all equally steep."""
    learned = [learned_of(grid) for grid in grids]
    groups: dict[str, list[float]] = {}
    for grid, it in zip(grids, learned, strict=True):
        groups.setdefault(environment_of(grid), []).append(curve_of(it).steepness)
    # An environment counts once, however many tables it has.
    steepness = statistics.geometric_mean(map(statistics.geometric_mean, groups.values()))
    curves = [curve_of(it, steepness) for it in learned]
    return [fits_of(grid, curve) for grid, curve in zip(grids, curves, strict=True)]


def fits_of(grid: Grid, curve: Curve) -> dict[str, Fit]:
    """Return the fit of each part to a whole table, judged by one calibration.

    Raises:
        ValueError: a part was not measured.
    """
    values, env_steps = values_of(grid), grid.facts["env_steps"]
    return {
        part: fit_of(known, env_steps, curve if part == "quality" else None)
        for part, known in values.items()
    }


def values_of(grid: Grid) -> dict[str, dict[HardwareConfig, list[float]]]:
    """Return what was measured of each part and config of a table.

    Raises:
        ValueError: a part was not measured.
    """
    values: dict[str, dict[HardwareConfig, list[float]]] = {part: {} for part in PARTS}
    groups: dict[HardwareConfig, list[TrialRecord]] = {}
    for record in judged(whole(grid), METHODS["grid"])[0]:
        groups.setdefault(hardware_of(record), []).append(record)
    for record in itertools.chain.from_iterable(map(that_count, groups.values())):
        known = {
            "util": None if record.device_util is None else record.device_util / FULL_UTIL,
            "quality": record.quality_score,
            "log_sps": math.log2(record.sps) if record.sps else None,
        }
        for part, value in known.items():
            if value is not None:
                values[part].setdefault(hardware_of(record), []).append(value)
    if missing := [part for part, known in values.items() if len(known) <= NUM_SLOPES + 1]:
        name = grid.facts.get("name", "a table")
        raise ValueError(f"{name} must have {missing[0]} of {NUM_SLOPES + 2} configs or more")
    return values


@dataclass(frozen=True, slots=True)
class Learned:
    """The mean quality of N configs, [N], after 2^`doublings` gradient steps."""

    doublings: Array
    quality: Array

    def rest(self, curve: Curve) -> Array:
        """Return what is left beside a curve times the level that suits it best, [N]."""
        shape = curve.of(self.doublings)
        return np.asarray(self.quality - shape * float(shape @ self.quality / (shape @ shape)))


def learned_of(grid: Grid) -> Learned:
    """Return how a table's configs learned."""
    known = values_of(grid)["quality"]
    points = points_of(list(known), grid.facts["env_steps"])
    means = np.array([statistics.fmean(values) for values in known.values()])
    return Learned(points[:, GRADIENT_STEPS], means)


def curve_of(learned: Learned, steepness: float | None = None) -> Curve:
    """Return the curve beside which least is left; as steep as given, or as suits it best."""

    def curve(numbers: Array) -> Curve:
        half, log_steepness = float(numbers[0]), float(numbers[1])
        return Curve(half, math.exp(log_steepness) if steepness is None else steepness)

    low, high = float(learned.doublings.min()), float(learned.doublings.max())
    found = least_squares(
        lambda numbers: learned.rest(curve(numbers)),
        [(low + high) / 2, 0.0],
        bounds=([low, -LOG_STEEPEST], [high, LOG_STEEPEST]),
    )
    return curve(found.x)


def whole(grid: Grid) -> Half:
    """Return a table as one half that has all measurements."""
    one, other = halves(grid)
    configs = sorted({*one.rows, *other.rows})
    rows = {c: (*one.rows.get(c, ()), *other.rows.get(c, ())) for c in configs}
    return replace(one, rows=rows)


def fit_of(
    values: dict[HardwareConfig, list[float]], env_steps: int, curve: Curve | None = None
) -> Fit:
    """Return the fit to the measured values of each config."""
    points = points_of(list(values), env_steps)
    means = np.array([statistics.fmean(known) for known in values.values()])
    number = statistics.harmonic_mean([len(known) for known in values.values()])
    variances = [statistics.variance(known) for known in values.values() if len(known) > 1]
    noise = statistics.fmean(variances) if variances else 0.0
    if curve is not None:
        means = Learned(points[:, GRADIENT_STEPS], means).rest(curve)
    sloped = points[:, :NUM_SLOPES]
    centred = sloped - sloped.mean(axis=0)
    # A dimension that does not vary gets no slope: the shortest solution is taken.
    slopes, _, rank, _ = np.linalg.lstsq(centred, means - means.mean(), rcond=None)
    rest = means - means.mean() - centred @ slopes
    # What is left of a config's mean is in part the noise of its measurements.
    left = float(rest @ rest) / (len(rest) - 1 - rank)
    signal = max(left - noise / number, LEAST_SHARE * left, TINY)
    length, steps_length = max(
        itertools.product(LENGTHS, (None,) if curve is None else LENGTHS),
        key=lambda it: _likelihood(
            points, rest, _lengths(it[0], it[1], rates=ANY), signal, noise / number
        ),
    )
    return Fit(
        tuple(map(float, slopes)), math.sqrt(signal), math.sqrt(noise), length, steps_length, curve
    )


def _lengths(length: float, steps_length: float | None, *, rates: float) -> tuple[float, ...]:
    """Return what `Prior.lengths` is: minibatches tell nothing that gradient steps do not."""
    if steps_length is None:
        return (*[length] * NUM_SLOPES, rates, ANY)
    return (ANY, *[length] * (NUM_SLOPES - 1), rates, steps_length)


def _likelihood(
    points: Array, rest: Array, lengths: Sequence[float], signal: float, noise: float
) -> float:
    """Return the log likelihood of what is left, were it alike over so many doublings."""
    alike = matern(points, points, np.array(lengths))
    covariance = signal * alike + max(noise, LEAST_SHARE * signal) * np.eye(len(rest))
    solved = np.linalg.solve(covariance, rest)
    return float(-0.5 * rest @ solved - 0.5 * np.linalg.slogdet(covariance)[1])


def mean_of(fits: Iterable[dict[str, Fit]]) -> dict[str, Fit]:
    """Return the mean fit of each part: of variances, and of the logarithms of lengths."""
    tables = list(fits)
    return {part: _mean([table[part] for table in tables]) for part in PARTS}


def slopes_apart(fits: Sequence[dict[str, Fit]]) -> dict[str, float] | None:
    """Return the standard deviation of slopes between environments, of all dimensions together.

    None of a single one, which says nothing of others.
    """
    if len(fits) < 2:
        return None
    slopes = {part: np.array([fit[part].slopes for fit in fits]) for part in PARTS}
    return {part: math.sqrt(known.var(axis=0, ddof=1).mean()) for part, known in slopes.items()}


def _mean(fits: Sequence[Fit]) -> Fit:
    steps = [fit.steps_length for fit in fits if fit.steps_length is not None]
    curves = [fit.curve for fit in fits if fit.curve is not None]
    return Fit(
        tuple(np.mean([fit.slopes for fit in fits], axis=0).tolist()),
        math.sqrt(statistics.fmean(fit.deviation**2 for fit in fits)),
        math.sqrt(statistics.fmean(fit.noise**2 for fit in fits)),
        statistics.geometric_mean(fit.length for fit in fits),
        None if not steps else statistics.geometric_mean(steps),
        None if not curves else _mean_curve(curves),
    )


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    halves = [curve.half for curve in curves]
    return Curve(
        statistics.fmean(halves),
        statistics.geometric_mean(curve.steepness for curve in curves),
        half_doubt=statistics.stdev(halves) if len(halves) > 1 else 0.0,
    )


def _prior(part: str, fit: Fit, apart: float | None) -> Prior:
    """Return what a fit lets one expect; doubted as on any CPU where `apart` is None.

    Of one other environment nobody knows how far slopes and curves lie apart: these doubts are then
    what all tables came to, the one that is searched among them. So are, always, the constants of
    `tuner.search.priors` and `expectation` that are no part of a prior.
    """
    supposed: Prior = getattr(PRIORS["cpu"], part)
    doubted = supposed.slopes_doubt if apart is None else apart / fit.deviation
    curve = fit.curve
    if curve is not None and supposed.curve is not None and apart is None:
        curve = replace(curve, half_doubt=supposed.curve.half_doubt)
    return Prior(
        tuple(TRUSTED[part] * slope for slope in fit.slopes),
        _lengths(fit.length, fit.steps_length, rates=RATES_LENGTH[part]),
        doubt=fit.deviation,
        noise=max(LEAST_SHARE, (fit.noise / fit.deviation) ** 2),
        slopes_doubt=min(MOST_DOUBT, doubted),
        curve=curve,
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
                + _curve_in_words(fit)
            )
    apart = document["slopes_apart"]
    words = (
        "unknown, of one environment"
        if apart is None
        else ", ".join(f"{value:.3f} of {part}" for part, value in apart.items())
    )
    lines.append(f"slopes of environments differ by (standard deviation): {words}")
    return "\n".join(lines)


def _curve_in_words(fit: dict[str, Any]) -> str:
    if fit["curve"] is None:
        return ""
    apart = f" ± {fit['curve']['half_doubt']:.1f}" if fit["curve"]["half_doubt"] else ""
    return (
        f" (steps {fit['steps_length']:.1f} ×2); half after 2^{fit['curve']['half']:.1f}{apart} "
        f"steps, steepness {fit['curve']['steepness']:.2f}"
    )


if __name__ == "__main__":
    main()
