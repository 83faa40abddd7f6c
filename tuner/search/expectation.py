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
from tuner.search.priors import LEVEL, RATES_DOUBT, Prior, Priors, points_of
from tuner.space import HardwareConfig

CERTAINTY = 4.0
"""How many measurements the doubt before any of them counts as."""
MOST = 400
"""Values that a part is learned from; of more the last ones, which a search has chosen best."""
DRAWS = 256
ODDS = 2.0
"""Logarithm of how much likelier values must be with slopes of their own: e² is about 7 times."""
TINY = 1e-6
"""Noise that makes equations solvable."""
FAILED = 0.05
"""Quality up to which a config is taken to have learned nothing: no profile would be it."""


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
    The doubt is, by so much as there are. `lost`, [M, 6], are the points of configs that did not
    work, `losses`, [M], what that costs those that are like them; see `without`.
    """

    prior: Prior
    env_steps: int
    points: Array
    middle: Array
    level: float
    factor: tuple[Array, bool]
    alpha: Array
    variance: float
    lost: Array
    losses: Array

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
        rest = data.values - prior.trend(data.points, middle)
        shape = prior.shape(data.points)
        level = float(shape @ rest / (shape @ shape)) if around is None else around.level
        if prior.curve is not None:  # more gradient steps teach no less
            level = max(0.0, level)
        rest = rest - level * shape
        covariance = data.alike + prior.shared(data.points, data.points, middle)
        factor = cho_factor(covariance, lower=True)
        alpha = cho_solve(factor, rest)
        # The level is taken from the values themselves: one of them tells nothing of the doubt.
        variance = (rest @ alpha + CERTAINTY * prior.doubt**2) / (len(rest) - 1 + CERTAINTY)
        return cls(
            prior,
            data.env_steps,
            data.points,
            middle,
            level,
            factor,
            alpha,
            variance,
            lost=data.points[:0],
            losses=data.values[:0],
        )

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
        """Learn from values, and from `running` as if they had brought what is expected of them.

        None where nothing was measured. Of configs that are `lost` see `without`.
        """
        if not known:
            return None
        part = cls.fit(prior, known, env_steps)
        if running:
            expected = map(Value, running, part.predict(running)[0].tolist())
            data = Data.of(prior, [*known, *expected], env_steps)
            part = replace(cls._fit(part.prior, data, around=part), variance=part.variance)
        return part.without(lost) if lost else part

    def without(self, lost: Sequence[HardwareConfig]) -> "Part":
        """Return the same, but expecting nothing of configs that did not work.

        Of others so much less is expected as they are like them; level, curve, slopes and doubt
        stay what measurements say.
        """
        lost = list(dict.fromkeys(lost))[-MOST:]
        points = points_of(lost, self.env_steps)
        alike = matern(points, points, np.array(self.prior.lengths)) + TINY * np.eye(len(points))
        losses = np.linalg.solve(alike, np.maximum(0.0, self.predict(lost)[0]))
        return replace(self, lost=points, losses=np.asarray(losses, dtype=np.float64))

    def predict(self, configs: Sequence[HardwareConfig]) -> tuple[Array, Array]:
        """Return mean and standard deviation of the true value of N configs, each [N]."""
        points = points_of(configs, self.env_steps)
        cross = matern(points, self.points, np.array(self.prior.lengths))
        cross += self.prior.shared(points, self.points, self.middle)
        shape = self.prior.shape(points)
        trend = self.prior.trend(points, self.middle)
        mean = self.level * shape + trend + cross @ self.alpha
        mean -= matern(points, self.lost, np.array(self.prior.lengths)) @ self.losses
        explained = np.einsum("ij,ji->i", cross, cho_solve(self.factor, cross.T))
        tilts = (self.prior.tilted(points, self.middle) ** 2).sum(axis=1)
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
