"""A model of the score over a space, from configs that were measured: smooth, with speed as trend.

It is asked what is still to be had at the end of a search (`tuner.outlook`), and what to try next
where a score has no parts to expect something of: of seconds to a return, and in studies that are
not tuner's. Other proposals come from `expectation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.search.model import Array, SmoothModel, SpeedModel, coordinates
from tuner.space import HardwareConfig, SearchSpace

AT_ONCE = 2_000
"""Configs predicted at once: each takes memory for every one that was measured."""
USUAL_LOG_SPS = 16.0
"""Taken from log2 of a speed, so that the trend is of the size of the other terms."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Coordinates in standard deviations of a space's configs, from their mean (each of D)."""

    mean: Array
    deviation: Array

    @classmethod
    def of(cls, space: SearchSpace) -> "Scale":
        """Return the scale on which the configs of a space have mean 0 and deviation 1."""
        points = np.array([coordinates(config) for config in space.configs()])
        spread = points.std(axis=0)
        return cls(points.mean(axis=0), np.where(spread > 0, spread, 1.0))

    def points(self, configs: Sequence[HardwareConfig]) -> Array:
        """Return where N configs lie, N × D; they need not be in the space."""
        points = np.array([coordinates(config) for config in configs])
        return np.asarray((points - self.mean) / self.deviation)


class Surrogate:
    """Predicts the score of any config from those of some; `speed` is None where too few ran."""

    def __init__(
        self,
        scale: Scale,
        configs: Sequence[HardwareConfig],
        values: Array,
        rates: Sequence[float | None],
    ) -> None:
        """Fit to `values` (N) of N configs and, where they are known, to their env-steps/s."""
        timed = [(c, rate) for c, rate in zip(configs, rates, strict=True) if rate]
        self.speed = SpeedModel.fit(*zip(*timed, strict=True)) if len(timed) >= 2 else None
        self._scale = scale
        self._model = SmoothModel(scale.points(configs), self._trend(configs), values)

    def predict(self, configs: Sequence[HardwareConfig]) -> tuple[Array, Array]:
        """Return mean and standard deviation of each config's true value."""
        parts = [configs[i : i + AT_ONCE] for i in range(0, len(configs), AT_ONCE)]
        found = [self._model.predict(self._scale.points(p), self._trend(p)) for p in parts]
        means, deviations = zip(*found, strict=True)
        return np.concatenate(means), np.concatenate(deviations)

    def _trend(self, configs: Sequence[HardwareConfig]) -> Array:
        if self.speed is None:
            return np.zeros((len(configs), 0))
        return np.array([[np.log2(self.speed.sps(c)) - USUAL_LOG_SPS] for c in configs])
