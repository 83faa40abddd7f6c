"""What a black box cannot know of configs: how their time adds up, and what learning hangs on.

Apart from the sampler that uses it because both models are functions of a few measurements that can
be tested without a study.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize, nnls
from scipy.special import ndtr

from tuner.space import HardwareConfig

Array = NDArray[np.float64]

NUM_PARTS = 5
"""Parts that the time of an update is made of."""
LENGTH_RANGE = (0.05, 20.0)
NOISE_RANGE = (1e-4, 1.0)
"""Of the variance that configs explain; both ranges in units of standardised data."""


def parts_of(config: HardwareConfig) -> tuple[float, ...]:
    """Return what the seconds of one update are counted in.

    An update costs something by itself, for every step, for every row that a step collects, for
    every gradient step, and for every row that these go through.
    """
    gradient_steps = config.num_epochs * config.num_minibatches
    rows = config.num_epochs * config.batch_size
    return (1.0, config.num_steps, config.batch_size, gradient_steps, rows)


@dataclass(frozen=True, slots=True)
class SpeedModel:
    """Seconds of an update as a sum of non-negative parts, fitted to relative errors."""

    seconds: tuple[float, ...]

    @classmethod
    def fit(cls, configs: Sequence[HardwareConfig], sps: Sequence[float]) -> "SpeedModel":
        """Fit to measured env-steps per second; two measurements give something, five the whole."""
        taken_s = np.array([c.batch_size / rate for c, rate in zip(configs, sps, strict=True)])
        parts = np.array([parts_of(config) for config in configs])
        relative = parts / taken_s[:, None]
        scale = np.linalg.norm(relative, axis=0)
        found, _ = nnls(relative / scale, np.ones(len(configs)))
        return cls(tuple(float(x) for x in found / scale))

    def sps(self, config: HardwareConfig) -> float:
        """Return the predicted env-steps per second."""
        update_s = sum(s * n for s, n in zip(self.seconds, parts_of(config), strict=True))
        return config.batch_size / max(update_s, 1e-12)


def coordinates(config: HardwareConfig) -> tuple[float, ...]:
    """Return where a config lies, in powers of two.

    The rows that a gradient averages over and the gradient steps for each env-step decide how it
    learns; how the batch is spread over environments and steps, and the epochs, are what is left.
    A learning rate is a fifth coordinate, where configs have one: speed does not hang on it.
    """
    gradient_steps = config.num_epochs * config.num_minibatches / config.batch_size
    return (
        math.log2(config.batch_size),
        math.log2(gradient_steps),
        math.log2(config.num_envs),
        math.log2(config.num_epochs),
        *(() if config.learning_rate is None else (math.log2(config.learning_rate),)),
    )


class SmoothModel:
    """A Gaussian process over configs: Matérn 5/2, a length for each coordinate, noise.

    Its mean is linear in the coordinates that are given as `trend`. Lengths and noise are the most
    likely ones under weak priors (Hvarfner et al. 2024 give them for few points).
    """

    def __init__(self, points: Array, trend: Array, values: Array) -> None:
        """Fit to `values` at `points` (N × D) with `trend` (N × T)."""
        self._points = points
        self._basis = np.column_stack([np.ones(len(points)), trend])
        self._mean, self._deviation = float(values.mean()), float(values.std()) or 1.0
        self._values = (values - self._mean) / self._deviation
        bounds = [np.log(LENGTH_RANGE)] * points.shape[1] + [np.log(NOISE_RANGE)]
        start = np.log([1.0] * points.shape[1] + [0.03])
        found = minimize(self._loss, start, bounds=bounds, method="L-BFGS-B",
                         options={"maxiter": 30})  # fmt: skip
        self._solve(found.x)

    def predict(self, points: Array, trend: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the true value at each point."""
        basis = np.column_stack([np.ones(len(points)), trend])
        cross = matern(points, self._points, self._lengths)
        mean = basis @ self._weights + cross @ self._alpha
        explained = np.einsum("ij,ji->i", cross, cho_solve(self._factor, cross.T))
        variance = np.maximum(1e-9, 1.0 - explained) * self._scale
        return self._mean + self._deviation * mean, self._deviation * np.sqrt(variance)

    def _solve(self, logs: Array) -> float:
        """Take lengths and noise; return their negative log posterior."""
        self._lengths, noise = np.exp(logs[:-1]), float(np.exp(logs[-1]))
        covariance = matern(self._points, self._points, self._lengths)
        covariance[np.diag_indices_from(covariance)] += noise + 1e-8
        self._factor = cho_factor(covariance, lower=True)
        solved = cho_solve(self._factor, self._basis)
        # A ridge keeps the trend quiet while there are fewer points than it has terms.
        gram = self._basis.T @ solved + 0.1 * np.eye(self._basis.shape[1])
        self._weights = np.linalg.solve(gram, solved.T @ self._values)
        rest = self._values - self._basis @ self._weights
        self._alpha = cho_solve(self._factor, rest)
        number = len(rest)
        self._scale = max(1e-6, float(rest @ self._alpha + 0.2) / (number + 2))
        log_determinant = 2 * float(np.log(np.diag(self._factor[0])).sum())
        likelihood = 0.5 * (number * math.log(self._scale) + log_determinant)
        lengths_prior = float(((logs[:-1] - 0.3) ** 2).sum()) / (2 * 1.0**2)
        noise_prior = float((logs[-1] - math.log(0.03)) ** 2) / (2 * 1.5**2)
        return likelihood + lengths_prior + noise_prior

    def _loss(self, logs: Array) -> float:
        try:
            return self._solve(np.asarray(logs))
        except np.linalg.LinAlgError:
            return 1e9


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return by how much each point is expected to exceed `best`."""
    z = (mean - best) / deviation
    return np.asarray(deviation * (z * ndtr(z) + np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)))


def matern(left: Array, right: Array, lengths: Array) -> Array:
    """Return the Matérn 5/2 covariance of N points with M others, [N, M]; 1 where they meet."""
    gaps = (left[:, None, :] - right[None, :, :]) / lengths
    distance = np.sqrt(5.0 * np.maximum(0.0, (gaps**2).sum(-1)))
    return np.asarray((1.0 + distance + distance**2 / 3.0) * np.exp(-distance))
