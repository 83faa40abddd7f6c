"""Proposes hardware configs: any Optuna sampler, made to respect the space.

Apart from the samplers themselves because two rules hold whichever of them proposes: a combination
whose batch does not divide is never tried, and no trial is spent on a config that has been tried.
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from storage.heartbeat import is_dead_here
from tuner.errors import UsageError
from tuner.space import DIMENSIONS, LEARNING_RATE, HardwareConfig, SearchSpace

REDRAWS = 32
"""Proposals of the inner sampler that may be known or invalid before one is drawn uniformly."""
REDRAW_TRIALS = 10_000
"""Trials that all redraws for one proposal may go through: TPE looks at each of them every time."""

CHOOSING_S = 10.0
"""Longest that another worker is waited for while its sampler thinks."""
CHOICE_POLL_S = 0.02

_TAKEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
"""Failed trials are not in it: Optuna learns nothing from them, and what failed is tried again."""


def make_sampler(name: str, space: SearchSpace, *, seed: int) -> "HardwareSampler":
    """Return the sampler of a setting: `auto`, `tpe`, `gp`, `structured`, `grid` or `random`.

    `auto` is Optuna's multivariate TPE. On resume give another seed, or the start-up proposals
    are repeated.

    Raises:
        UsageError: `gp` without torch, which Optuna's GP needs.
    """
    if name == "gp":
        try:
            import torch  # noqa: F401
        except ImportError:
            raise UsageError(
                "--sampler gp must have torch, but got an environment without it; "
                "install the extra with: pip install 'tuner[gp]', or use --sampler tpe"
            ) from None
    inner: BaseSampler | None = None
    if name == "gp":
        inner = GPSampler(seed=seed)
    elif name in ("auto", "tpe"):
        inner = TPESampler(seed=seed, multivariate=True)
    elif name == "structured":
        from tuner.search.structured import StructuredSampler

        inner = StructuredSampler(space, seed=seed)
    return HardwareSampler(space, inner, seed=seed, in_order=name == "grid")


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the categorical distribution of each dimension."""
    return {name: CategoricalDistribution(c) for name, c in space.choices().items()}


def config_of(params: dict[str, Any]) -> HardwareConfig | None:
    """Return the config in a trial's parameters, or None if it has none."""
    if any(name not in params for name in DIMENSIONS):
        return None
    numbers = {name: int(params[name]) for name in DIMENSIONS}
    return HardwareConfig(**numbers, learning_rate=params.get(LEARNING_RATE))


def untried(study: Study, space: SearchSpace) -> list[HardwareConfig]:
    """Return the valid configs that no finished, running or queued trial has, in order."""
    tried = _tried(study.get_trials(deepcopy=False))
    return [config for config in space.configs() if config not in tried]


def num_untried(trials: Iterable[FrozenTrial], space: SearchSpace) -> int:
    """Return how many configs `untried` returns, without a walk through the space."""
    configs = space.config_set()
    return len(configs) - len(configs & _tried(trials))


def _tried(trials: Iterable[FrozenTrial]) -> set[HardwareConfig | None]:
    """Return what finished, running and queued trials have; `None` is of those without a config."""
    tried = set()
    for trial in trials:
        if trial.state not in _TAKEN:
            continue
        queued = trial.system_attrs.get("fixed_params", {})
        tried.add(config_of({**queued, **trial.params}))
    return tried


class SpaceExhausted(Exception):
    """Every config is taken: another worker took the last one after this trial had begun."""


class HardwareSampler(BaseSampler):
    """Asks an inner sampler until it proposes a valid, untried config; else draws one uniformly.

    Usable in any Optuna study whose objective suggests the `choices` of a `SearchSpace` in order.
    """

    def __init__(
        self, space: SearchSpace, inner: BaseSampler | None, *, seed: int, in_order: bool = False
    ) -> None:
        """Wrap `inner`; without one, configs come at random, or `in_order` of the space."""
        self._space = space
        self._inner = inner
        self._in_order = in_order
        self._random = random.Random(seed)

    def reseed_rng(self) -> None:
        """Take fresh random states, as Optuna asks of a sampler in a new worker."""
        self._random = random.Random()
        if self._inner is not None:
            self._inner.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the dimensions, which never change within a study."""
        return distributions(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return a valid config that has not been tried; {} when the space is exhausted."""
        fixed = trial.system_attrs.get("fixed_params", {})
        if config_of(fixed) is not None:
            return {}
        trials = _once_earlier_ones_chose(study, trial)
        tried, configs = _tried(trials), self._space.config_set()

        # A process that was killed while it suggested has queued a part of a config.
        def is_left(config: HardwareConfig) -> bool:
            return config not in tried and all(
                getattr(config, name) == value for name, value in fixed.items()
            )

        if not any(map(is_left, configs)):
            return {}
        proposal = self._proposed(study, trial, search_space)
        for config in proposal:
            if config in configs and is_left(config):
                return config.params()
        left = list(filter(is_left, self._space.configs()))
        return (left[0] if self._in_order else self._random.choice(left)).params()

    def _proposed(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Iterator[HardwareConfig]:
        """Ask the inner sampler, if there is one and it has started up, again and again."""
        for _ in range(max(1, min(REDRAWS, REDRAW_TRIALS // (trial.number + 1)))):
            if self._inner is None:
                return
            config = config_of(self._inner.sample_relative(study, trial, search_space))
            if config is None:
                return
            yield config

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Refuse: a dimension drawn by itself could make a config that was measured already.

        Raises:
            SpaceExhausted: nothing is left to propose.
        """
        raise SpaceExhausted("every config of the space is taken")

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Let the inner sampler prepare."""
        if self._inner is not None:
            self._inner.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the inner sampler note what came of a trial."""
        if self._inner is not None:
            self._inner.after_trial(study, trial, state, values)


def _once_earlier_ones_chose(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return all trials once every running one with a lower number has its config.

    Or its worker is gone, or the wait has been long.

    Trial numbers are given one at a time, so workers choose in the order of their trials (as at
    Lamport's bakery): each sees what those before it have taken, and no two take the same.
    """
    until = time.monotonic() + CHOOSING_S
    while True:
        trials = study.get_trials(deepcopy=False)
        earlier = [t for t in trials[: trial.number] if t.state == TrialState.RUNNING]
        has_chosen = all(_has_chosen(other) or is_dead_here(other) for other in earlier)
        if has_chosen or time.monotonic() > until:
            return trials
        time.sleep(CHOICE_POLL_S)


def _has_chosen(trial: FrozenTrial) -> bool:
    return config_of({**trial.system_attrs.get("fixed_params", {}), **trial.params}) is not None
