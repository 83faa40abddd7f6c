"""What is expected of every config's score, part by part, from the first measurement on.

Apart from `surrogate`, which knows a score as one number and learns all from the measurements: the
parts of a score behave much alike on most devices and workloads, so that each can be expected
before anything but the baseline was measured. Few seconds of measuring then go where they tell.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from tuner.score import FULL_UTIL, ScoreReferences
from tuner.search.model import Array, matern
from tuner.space import HardwareConfig

LEVEL = 2.0
"""Variance of the level that all configs share, as a share of the doubt's square: one measurement
nearly settles it."""
CERTAINTY = 4.0
"""How many measurements the doubt before any of them counts as."""
MOST = 400
"""Values that a part is learned from; of more the last ones, which a search has chosen best."""
DRAWS = 256
NUM_SLOPES = 4
"""Coordinates with slopes: minibatch, batch, epochs and environments, the first of `points_of`."""
GRADIENT_STEPS = 5
"""The coordinate of `points_of` that learning hangs on most."""
ANY = 1_000.0
"""A length in doublings over which configs are alike however far apart."""
ODDS = 2.0
"""Logarithm of how much likelier values must be with slopes of their own: e² is about 7 times."""
HALVES = (0.0, -0.5, 0.5, -1.0, 1.0, -1.5, 1.5, -2.0, 2.0)
"""Where a workload's curve may lie, in standard deviations of its half; of equals the first."""
FAILED = 0.05
"""Quality up to which a config is taken to have learned nothing: no profile would be it."""


@dataclass(frozen=True, slots=True)
class Curve:
    """How learning saturates: after 2^`half` gradient steps it is half of what it can be.

    Each doubling multiplies the ratio of what was learned to what was not by 2^`steepness`. By
    `half_doubt` `half` differs between workloads (standard deviation).
    """

    half: float
    steepness: float
    half_doubt: float = 0.0

    def of(self, doublings: Array) -> Array:
        """Return the share that is learned after 2^`doublings` gradient steps."""
        return np.asarray(1.0 / (1.0 + 2.0 ** (self.steepness * (self.half - doublings))))


@dataclass(frozen=True, slots=True)
class Prior:
    """What is expected of one part of the score before it was measured.

    `slopes` is its change with every doubling of minibatch, batch, epochs and environments, beside
    a level, or beside one that is multiplied by `curve`; `lengths` says over how many doublings
    configs are alike beside that, for each coordinate of `points_of`; `doubt` is the standard
    deviation of what is left, `noise` the variance between measurements of one config as a share of
    its square. `slopes_doubt` is how wrong slopes may be for a workload, the standard deviation as
    a share of `doubt`; see `Part.fit`.
    """

    slopes: tuple[float, ...]
    lengths: tuple[float, ...]
    doubt: float
    noise: float
    slopes_doubt: float = 0.0
    curve: Curve | None = None

    def variants(self) -> list[tuple["Prior", float]]:
        """Return priors with the curves that a workload may have, and the log of their odds."""
        if self.curve is None or self.curve.half_doubt == 0.0:
            return [(self, 0.0)]
        return [
            (replace(self, curve=replace(self.curve, half=half)), -0.5 * away**2)
            for away in HALVES
            for half in [self.curve.half + away * self.curve.half_doubt]
        ]

    def shape(self, points: Array) -> Array:
        """Return what the level is multiplied by at N points, [N]."""
        if self.curve is None:
            return np.ones(len(points))
        return self.curve.of(points[:, GRADIENT_STEPS])


@dataclass(frozen=True, slots=True)
class Priors:
    """What is expected of each part of the score."""

    util: Prior
    quality: Prior
    log_sps: Prior


QUALITY = Prior(
    (0.0, 0.006, 0.005, -0.007),
    (ANY, 2.4, 2.4, 2.4, 1.5, 1.2),
    doubt=0.044,
    noise=1.9,
    slopes_doubt=0.37,
    curve=Curve(half=8.3, steepness=1.36, half_doubt=1.5),
)
"""At equal env-steps: larger minibatches and fewer epochs are fewer gradient steps (see arXiv
2110.00641), and of so many more there is no more to learn. Which learning rate learns best is known
of no workload: it has no slope."""

RATES_DOUBT = 0.3
"""The doubt of quality where there are several learning rates: supposed, as tables have one."""

PRIORS = {
    "cpu": Priors(
        util=Prior(
            (-0.001, 0.003, 0.004, -0.004),
            (1.5, 1.5, 1.5, 1.5, ANY, ANY),
            doubt=0.051,
            noise=0.3,
            slopes_doubt=0.19,
        ),
        quality=QUALITY,
        log_sps=Prior(
            (0.114, 0.017, -0.74, 0.016),
            (3.3, 3.3, 3.3, 3.3, ANY, ANY),
            doubt=0.25,
            noise=0.41,
            slopes_doubt=0.13,
        ),
    ),
    "gpu": Priors(
        util=Prior(
            (0.06, 0.0, 0.0, 0.02),
            (3.0, 4.0, 4.0, 4.0, ANY, ANY),
            doubt=0.2,
            noise=0.15,
            slopes_doubt=0.2,
        ),
        quality=QUALITY,
        log_sps=Prior(
            (0.1, 0.0, -0.7, 0.1),
            (4.0, 6.0, 4.0, 6.0, ANY, ANY),
            doubt=0.5,
            noise=0.15,
            slopes_doubt=0.2,
        ),
    ),
}
"""By kind of device: `util` is a share of `FULL_UTIL`, `log_sps` log₂ of env-steps/s.

Each epoch goes through the batch again, the rollout does not; larger products and more environments
spread what a launch costs. A CPU core is busy whatever its config: a CPU's numbers, and quality's,
are what tables recorded on two cores let one expect (`benchmarks/priors.py`).
A GPU is kept busier by more rows in each product; its other numbers are supposed, since no table of
one is recorded.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The parts of a score that were measured of a config; None for one that was not.

    `times` is how many measurements they are the means of.
    """

    config: HardwareConfig
    device_util: float | None
    quality_score: float | None
    sps: float | None
    times: int = 1


class Value(NamedTuple):
    """One part of one config's score, the mean of `times` measurements."""

    config: HardwareConfig
    value: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Data:
    """What a part is learned from: N values, [N], and the points, [N, 6], of their configs.

    `alike`, [N, N], is how far values go together, but for level and slopes: with their noise.
    """

    env_steps: int
    values: Array
    points: Array
    alike: Array

    @classmethod
    def of(cls, prior: Prior, known: Sequence[Value], env_steps: int) -> "Data":
        """Return the last `MOST` of some values."""
        known = known[-MOST:]
        points = points_of([value.config for value in known], env_steps)
        noise = prior.noise / np.array([value.times for value in known])
        alike = matern(points, points, np.array(prior.lengths)) + np.diag(noise)
        return cls(env_steps, np.array([value.value for value in known]), points, alike)


@dataclass(frozen=True, slots=True)
class Part:
    """A Gaussian process of one part: Matérn 5/2 around its prior, with fixed lengths.

    Lengths are not fitted: a search is over before there are measurements enough to tell them.
    The doubt is, by so much as there are.
    """

    prior: Prior
    env_steps: int
    points: Array
    middle: Array
    level: float
    factor: tuple[Array, bool]
    alpha: Array
    variance: float

    @classmethod
    def fit(cls, prior: Prior, known: Sequence[Value], env_steps: int) -> "Part":
        """Learn from the values of one or more configs, some perhaps more than once.

        Each was trained for `env_steps`. Of the curves that a workload may have, the likeliest is
        taken. Slopes are taken as expected until values are far likelier with slopes of their own:
        to doubt them from the start would send a search to the ends of the space.
        """
        data = Data.of(prior, known, env_steps)
        held = replace(prior, slopes_doubt=0.0)
        curved = [(cls._fit(variant, data), odds) for variant, odds in held.variants()]
        sure = max(curved, key=lambda it: it[0]._log_density() + it[1])[0]
        unsure = cls._fit(replace(sure.prior, slopes_doubt=prior.slopes_doubt), data)
        return unsure if unsure._log_density() > sure._log_density() + ODDS else sure

    @classmethod
    def _fit(cls, prior: Prior, data: "Data", around: "Part | None" = None) -> "Part":
        middle = data.points.mean(axis=0) if around is None else around.middle
        rest = data.values - _trend(prior, data.points, middle)
        shape = prior.shape(data.points)
        level = float(shape @ rest / (shape @ shape)) if around is None else around.level
        if prior.curve is not None:  # what can be learned is at most 1
            level = min(1.0, level)
        rest = rest - level * shape
        covariance = data.alike + _shared(prior, data.points, data.points, middle)
        factor = cho_factor(covariance, lower=True)
        alpha = cho_solve(factor, rest)
        # The level is taken from the values themselves: one of them tells nothing of the doubt.
        variance = (rest @ alpha + CERTAINTY * prior.doubt**2) / (len(rest) - 1 + CERTAINTY)
        return cls(prior, data.env_steps, data.points, middle, level, factor, alpha, variance)

    def _log_density(self) -> float:
        """Return the logarithm of the values' density, a Student's t, without its constants."""
        certainty = len(self.points) - 1 + CERTAINTY
        log_determinant = 2 * np.log(np.diag(self.factor[0])).sum()
        return float(-0.5 * log_determinant - 0.5 * certainty * math.log(self.variance))

    @classmethod
    def of(
        cls,
        prior: Prior,
        known: Sequence[Value],
        env_steps: int,
        *,
        running: Sequence[HardwareConfig] = (),
        lost: Sequence[HardwareConfig] = (),
    ) -> "Part | None":
        """Learn from values, from `running` as if they had brought what is expected, `lost` 0.

        Of these two, only what is expected of their neighbours is learned. None where nothing was
        measured.
        """
        if not known:
            return None
        part = cls.fit(prior, known, env_steps)
        pinned = [Value(config, 0.0) for config in lost]
        if running:
            pinned += map(Value, running, part.predict(running)[0].tolist())
        if not pinned:
            return part
        bent = cls._fit(part.prior, Data.of(prior, [*known, *pinned], env_steps), around=part)
        return replace(bent, variance=part.variance)

    def predict(self, configs: Sequence[HardwareConfig]) -> tuple[Array, Array]:
        """Return mean and standard deviation of the true value of N configs, each [N]."""
        points = points_of(configs, self.env_steps)
        cross = matern(points, self.points, np.array(self.prior.lengths))
        cross += _shared(self.prior, points, self.points, self.middle)
        shape = self.prior.shape(points)
        trend = _trend(self.prior, points, self.middle)
        mean = self.level * shape + trend + cross @ self.alpha
        explained = np.einsum("ij,ji->i", cross, cho_solve(self.factor, cross.T))
        tilts = (_tilted(self.prior, points, self.middle) ** 2).sum(axis=1)
        before = 1 + LEVEL * shape**2 + tilts
        left = np.maximum(1e-6, before - explained)
        return mean, np.sqrt(self.variance * left)


class ScoreModel:
    """Draws what the scores of configs may be, given those that were measured.

    Its parts are `util` (a share of `FULL_UTIL`), `quality` and `log_sps`, each None where it was
    never measured.
    """

    def __init__(
        self,
        references: ScoreReferences,
        measured: Sequence[Measured],
        running: Sequence[HardwareConfig] = (),
        lost: Sequence[HardwareConfig] = (),
        *,
        env_steps: int,
        priors: Priors,
    ) -> None:
        """Learn what scores are.

        Args:
            references: what the score is made of.
            measured: what is known.
            running: configs that are being measured.
            lost: configs that did not work.
            env_steps: that every config is trained for.
            priors: what was expected before.
        """
        self._references = references
        util = [
            Value(m.config, m.device_util / FULL_UTIL, m.times)
            for m in measured
            if m.device_util is not None
        ]
        quality = [
            Value(m.config, m.quality_score, m.times)
            for m in measured
            if m.quality_score is not None
        ]
        log_sps = [Value(m.config, math.log2(m.sps), m.times) for m in measured if m.sps]
        of_rates = _of_rates(priors.quality, quality)
        self.util = Part.of(priors.util, util, env_steps, running=running)
        self.quality = Part.of(of_rates, quality, env_steps, running=running, lost=lost)
        self.log_sps = Part.of(priors.log_sps, log_sps, env_steps, running=running)

    def sps(self, configs: Sequence[HardwareConfig]) -> Array:
        """Return the expected env-steps per second of N configs, [N]; 1 where none is known."""
        if self.log_sps is None:
            return np.ones(len(configs))
        return np.asarray(2.0 ** self.log_sps.predict(configs)[0])

    def draw(self, configs: Sequence[HardwareConfig], *, random: np.random.Generator) -> Array:
        """Return `DRAWS` possible scores of each of N configs, [N, DRAWS], in [0, 1].

        The parts are drawn independently of each other, each alike for all configs, so that
        configs differ by what is expected of them and not by their luck. A config that learns
        nothing has 0: it could not be a profile.
        """
        used, weights = self._references.components, self._references.weights.as_dict()
        sps = 2.0 ** _draw(self.log_sps, configs, random)
        quality = np.clip(_draw(self.quality, configs, random), 0.0, 1.0)
        parts = {
            "gpu": np.clip(_draw(self.util, configs, random), 0.0, 1.0),
            "quality": quality,
            "sps": sps / (sps + self._references.sps),
        }
        total = sum(weights[name] for name in used)
        scores = np.asarray(sum(weights[name] * parts[name] for name in used) / total)
        return np.where(quality > FAILED, scores, 0.0) if "quality" in used else scores


def _of_rates(quality: Prior, known: Sequence[Value]) -> Prior:
    """Return what is expected of quality where configs have several learning rates, too.

    Of the other dimensions as much is known as where there is one: their slopes are as sure. One
    measurement is as noisy.
    """
    if all(value.config.learning_rate is None for value in known):
        return quality
    doubt = max(quality.doubt, RATES_DOUBT)
    share = quality.doubt / doubt
    return replace(
        quality,
        doubt=doubt,
        noise=quality.noise * share**2,
        slopes_doubt=quality.slopes_doubt * share,
    )


def _draw(
    part: Part | None, configs: Sequence[HardwareConfig], random: np.random.Generator
) -> Array:
    """Return possible values of N configs, [N, DRAWS]; 0 where nothing is known."""
    if part is None:
        return np.zeros((len(configs), DRAWS))
    mean, deviation = part.predict(configs)
    return np.asarray(mean[:, None] + deviation[:, None] * random.standard_normal(DRAWS)[None, :])


def points_of(configs: Sequence[HardwareConfig], env_steps: int) -> Array:
    """Return where N configs lie, [N, 6], in doublings.

    That is minibatch, batch, epochs, environments, learning rate and gradient steps in a training
    of `env_steps`. One learning rate for all is no difference.
    """
    return np.log2(
        [
            (
                c.minibatch_size,
                c.batch_size,
                c.num_epochs,
                c.num_envs,
                c.learning_rate or 1.0,
                env_steps / c.minibatch_size * c.num_epochs,
            )
            for c in configs
        ]
    )


def _trend(prior: Prior, points: Array, middle: Array) -> Array:
    return np.asarray((points - middle)[:, :NUM_SLOPES] @ np.array(prior.slopes))


def _shared(prior: Prior, left: Array, right: Array, middle: Array) -> Array:
    """Return how far N and M configs go together by level and slopes, [N, M].

    Slopes turn around the middle of what was measured, whose level is known.
    """
    slopes = _tilted(prior, left, middle) @ _tilted(prior, right, middle).T
    return np.asarray(slopes + LEVEL * np.outer(prior.shape(left), prior.shape(right)))


def _tilted(prior: Prior, points: Array, middle: Array) -> Array:
    """Return how far from the middle N configs lie, in what a doubt of the slopes comes to, [N, 4].

    Learning rates have no slope: the best lies between others.
    """
    return np.asarray(prior.slopes_doubt * (points - middle)[:, :NUM_SLOPES])
