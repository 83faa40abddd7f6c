"""What is expected of the parts of a score before any but the baseline's were measured.

Apart from `expectation`, which learns from measurements what these only suppose: here are the
numbers, and `benchmarks/priors.py` says where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.search.model import Array
from tuner.space import HardwareConfig

LEVEL = 2.0
"""Variance of the level that all configs share, as a share of the doubt's square, beside what the
measurements themselves come to on average."""
NUM_SLOPES = 4
"""Coordinates with slopes: minibatch, batch, epochs and environments, the first of `points_of`."""
GRADIENT_STEPS = 5
"""The coordinate of `points_of` that learning hangs on most."""
ANY = 1_000.0
"""A length in doublings over which configs are alike however far apart."""
HALVES = (0.0, -0.5, 0.5, -1.0, 1.0, -1.5, 1.5, -2.0, 2.0)
"""Where a workload's curve may lie, in standard deviations of its half; of equals the first."""


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

    def trend(self, points: Array, middle: Array) -> Array:
        """Return what slopes come to at N points, [N], beside what they come to in the middle."""
        return np.asarray((points - middle)[:, :NUM_SLOPES] @ np.array(self.slopes))

    def tilted(self, points: Array, middle: Array) -> Array:
        """Return how far from the middle N points lie, in what a doubt of slopes comes to, [N, 4].

        Learning rates have no slope: the best lies between others.
        """
        return np.asarray(self.slopes_doubt * (points - middle)[:, :NUM_SLOPES])

    def shared(self, left: Array, right: Array, middle: Array) -> Array:
        """Return how far N and M points go together by level and slopes, [N, M].

        Slopes turn around the middle of what was measured, whose level is known.
        """
        slopes = self.tilted(left, middle) @ self.tilted(right, middle).T
        return np.asarray(slopes + LEVEL * np.outer(self.shape(left), self.shape(right)))


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
