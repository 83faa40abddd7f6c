"""What is expected of every config's score, part by part, from the first measurement on.

Apart from `surrogate`, which knows a score as one number and learns all from the measurements: the
parts of a score behave alike on every device and workload, so that each can be expected before
anything but the baseline was measured. A few dozen seconds of measuring then go where they tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from tuner.score import FULL_UTIL, ScoreReferences
from tuner.search.model import Array, matern
from tuner.space import HardwareConfig

NOISE = 0.15
"""Variance between measurements of one config, as a share of what configs differ by."""
DRAWS = 256
CONSTANT = 2.0
"""Variance of a part's level, in units of its doubt: one measurement settles it."""
MOST = 400
"""Values that a part is learned from; of more the last ones, which a search has chosen best."""
CERTAINTY = 4.0
"""How many measurements the doubt before any of them counts as."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What is expected of one part of the score before it was measured.

    `slopes` is its change with every doubling of minibatch, batch, epochs, environments and, where
    there are several, learning rate; `lengths` says over how many doublings configs are alike
    beside that; `doubt` is the standard deviation of what is left.
    """

    slopes: tuple[float, ...]
    lengths: tuple[float, ...]
    doubt: float


UTIL = Prior((0.06, 0.0, 0.0, 0.02, 0.0), (3.0, 4.0, 4.0, 4.0, 100.0), 0.2)
"""Share of `FULL_UTIL`: more rows in each product keep more of a device busy."""
QUALITY = Prior((-0.06, 0.0, 0.03, 0.0, 0.0), (3.0, 4.0, 4.0, 4.0, 1.5), 0.3)
"""Quality at equal env-steps: larger minibatches and fewer epochs are fewer gradient steps (see
arXiv 2110.00641). Which learning rate learns best is known of no workload: it has no slope."""
LOG_SPS = Prior((0.1, 0.0, -0.7, 0.1, 0.0), (4.0, 6.0, 4.0, 6.0, 100.0), 0.5)
"""log₂ of env-steps/s: each epoch goes through the batch again, the rollout does not; larger
products and more environments spread what a launch costs."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The parts of a score that were measured of a config; None for one that was not."""

    config: HardwareConfig
    device_util: float | None
    quality_score: float | None
    sps: float | None


class ScoreModel:
    """Draws what the scores of configs may be, given those that were measured."""

    def __init__(self, references: ScoreReferences, measured: Sequence[Measured]) -> None:
        """Learn from measurements; `references` says what the score is made of."""
        self._references = references
        self._util = Part.fit(
            UTIL, [(m.config, m.device_util / FULL_UTIL) for m in measured if m.device_util]
        )
        self._quality = Part.fit(
            QUALITY,
            [(m.config, m.quality_score) for m in measured if m.quality_score is not None],
        )
        self._log_sps = Part.fit(LOG_SPS, [(m.config, np.log2(m.sps)) for m in measured if m.sps])

    def expected(self, config: HardwareConfig) -> Measured:
        """Return the most likely parts of a config: what one that is being measured may bring."""
        util, quality, log_sps = (
            float(part.predict([config])[0][0])
            for part in (self._util, self._quality, self._log_sps)
        )
        return Measured(
            config, FULL_UTIL * max(0.0, util), min(1.0, max(0.0, quality)), 2.0**log_sps
        )

    def sps(self, configs: Sequence[HardwareConfig]) -> Array:
        """Return the expected env-steps per second of N configs, [N]."""
        return np.asarray(2.0 ** self._log_sps.predict(configs)[0])

    def draw(self, configs: Sequence[HardwareConfig], *, random: np.random.Generator) -> Array:
        """Return `DRAWS` possible scores of each of N configs, [N, DRAWS], in [0, 1].

        The parts of a config, and the configs, are drawn independently of each other.
        """
        used, weights = self._references.components, self._references.weights.as_dict()
        sps = 2.0 ** self._log_sps.draw(configs, random)
        parts = {
            "gpu": np.clip(self._util.draw(configs, random), 0.0, 1.0),
            "quality": np.clip(self._quality.draw(configs, random), 0.0, 1.0),
            "sps": sps / (sps + self._references.sps),
        }
        total = sum(weights[name] for name in used)
        return np.asarray(sum(weights[name] * parts[name] for name in used) / total)


@dataclass(frozen=True, slots=True)
class Part:
    """A Gaussian process of one part: Matérn 5/2 around its prior, with fixed lengths.

    Lengths are not fitted: a search is over before there are measurements enough to tell them.
    The doubt is, by so much as there are.
    """

    prior: Prior
    points: Array
    level: float
    factor: tuple[Array, bool] | None
    alpha: Array
    variance: float

    @classmethod
    def fit(cls, prior: Prior, known: Sequence[tuple[HardwareConfig, float]]) -> "Part":
        """Learn from the values of some configs, perhaps none, some perhaps more than once."""
        known = known[-MOST:]
        points = _points([config for config, _ in known])
        rest = np.array([value for _, value in known]) - _trend(prior, points)
        if not known:
            return cls(prior, points, 0.5, None, rest, (1 + CONSTANT) * prior.doubt**2)
        level = float(rest.mean())
        rest = rest - level
        covariance = _covariance(prior, points, points)
        covariance[np.diag_indices_from(covariance)] += NOISE
        factor = cho_factor(covariance, lower=True)
        alpha = cho_solve(factor, rest)
        variance = (rest @ alpha + CERTAINTY * prior.doubt**2) / (len(rest) + CERTAINTY)
        return cls(prior, points, level, factor, alpha, float(variance))

    def predict(self, configs: Sequence[HardwareConfig]) -> tuple[Array, Array]:
        """Return mean and standard deviation of the true value of N configs, each [N]."""
        points = _points(configs)
        mean = self.level + _trend(self.prior, points)
        if self.factor is None:
            return mean, np.full(len(points), np.sqrt(self.variance))
        cross = _covariance(self.prior, points, self.points)
        explained = np.einsum("ij,ji->i", cross, cho_solve(self.factor, cross.T))
        left = np.maximum(1e-6, 1 + CONSTANT - explained)
        return mean + cross @ self.alpha, np.sqrt(self.variance * left)

    def draw(self, configs: Sequence[HardwareConfig], random: np.random.Generator) -> Array:
        """Return possible values of N configs, [N, DRAWS]."""
        mean, deviation = self.predict(configs)
        noise = random.standard_normal((len(mean), DRAWS))
        return np.asarray(mean[:, None] + deviation[:, None] * noise)


def _points(configs: Sequence[HardwareConfig]) -> NDArray[np.float64]:
    """Return where N configs lie, [N, 5], in doublings; one rate for all is no difference."""
    return np.log2(
        [
            (c.minibatch_size, c.batch_size, c.num_epochs, c.num_envs, c.learning_rate or 1.0)
            for c in configs
        ]
        or np.ones((0, 5))
    )


def _trend(prior: Prior, points: Array) -> Array:
    return np.asarray(points @ np.array(prior.slopes))


def _covariance(prior: Prior, left: Array, right: Array) -> Array:
    return np.asarray(matern(left, right, np.array(prior.lengths)) + CONSTANT)
