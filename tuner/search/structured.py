"""The sampler `structured`: proposes by what is known of the structure of hardware configs.

Usable in any Optuna study whose objective suggests the dimensions of a space; where its trials
carry the user attribute `sps` (env-steps per second), their speed is modelled too.
"""

import random
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from tuner.search.model import Array, SpeedModel, expected_improvement
from tuner.search.surrogate import Scale, Surrogate
from tuner.space import HardwareConfig, SearchSpace, config_of

STARTUP = 5
"""Trials that are spread over the space before a model is asked, the baseline among them."""


class StructuredSampler(BaseSampler):
    """Spreads a few trials, then proposes what may improve most for its cost."""

    def __init__(self, space: SearchSpace, *, seed: int) -> None:
        """Sample from `space`."""
        self._space = space
        self._configs = space.configs()
        self._random = random.Random(seed)
        self._independent = RandomSampler(seed=seed)
        self._scale = Scale.of(space)
        self._points = self._scale.points(self._configs)

    def reseed_rng(self) -> None:
        """Take fresh random states, as Optuna asks of a sampler in a new worker."""
        self._random = random.Random()
        self._independent.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the dimensions."""
        choices = self._space.choices().items()
        return {n: optuna.distributions.CategoricalDistribution(c) for n, c in choices}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the config to try next; {} when all have been tried."""
        known = [t for t in study.get_trials(deepcopy=False) if _has_config(t)]
        tried = {_config(t) for t in known if t.state != TrialState.FAIL}
        left = [i for i, config in enumerate(self._configs) if config not in tried]
        if not left:
            return {}
        places = {config: i for i, config in enumerate(self._configs)}
        seen = [t for t in known if t.state == TrialState.COMPLETE and _config(t) in places]
        taken = [places[c] for c in tried if c in places]
        if len(seen) < STARTUP:
            return self._configs[self._spread(left, taken)].params()
        return self._configs[self._promising(study, seen, left)].params()

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw one dimension uniformly; reached only once the space is exhausted."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _spread(self, left: list[int], taken: list[int]) -> int:
        """Return a config far from those that were tried, one of the farthest at random."""
        if not taken:
            return self._random.choice(left)
        gaps = self._points[left][:, None, :] - self._points[taken][None, :, :]
        distance = np.sqrt((gaps**2).sum(-1)).min(axis=1)
        farthest = np.argsort(-distance)[: max(1, len(left) // 8)]
        return left[int(self._random.choice(list(farthest)))]

    def _promising(self, study: optuna.Study, seen: list[FrozenTrial], left: list[int]) -> int:
        configs, values = [_config(t) for t in seen], [_value(t) for t in seen]
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        targets = sign * np.array(values)
        candidates = [self._configs[i] for i in left]
        rates = [t.user_attrs.get("sps") for t in seen]
        model = Surrogate(self._scale, configs, targets, rates)
        mean, deviation = model.predict(candidates)
        gain = expected_improvement(mean, deviation, float(targets.max()))
        return left[int(np.argmax(gain / self._cost(model.speed, candidates)))]

    def _cost(self, speed: SpeedModel | None, configs: list[HardwareConfig]) -> Array:
        """Return how long each config takes beside the quickest, mildly: half is set-up."""
        if speed is None:
            return np.ones(len(configs))
        window = np.array([1.0 / speed.sps(config) for config in configs])
        return np.asarray(np.sqrt(0.5 + 0.5 * window / window.min()))


def _has_config(trial: FrozenTrial) -> bool:
    return config_of(_params(trial)) is not None


def _config(trial: FrozenTrial) -> HardwareConfig:
    config = config_of(_params(trial))
    if config is None:
        raise ValueError(f"a known trial must have a config, but {trial.number} has none")
    return config


def _params(trial: FrozenTrial) -> dict[str, Any]:
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _value(trial: FrozenTrial) -> float:
    if trial.value is None:
        raise ValueError(f"a complete trial must have a value, but {trial.number} has none")
    return trial.value
