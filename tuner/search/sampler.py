"""Proposes hardware configs: any Optuna sampler, made to respect the space.

Apart from the samplers themselves because two rules hold whichever of them proposes: a combination
whose batch does not divide is never tried, and no trial is spent on a config that has been tried.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from storage.heartbeat import is_dead_here
from storage.studies import study_facts
from tuner.errors import UsageError
from tuner.space import HardwareConfig, SearchSpace, config_of

REDRAWS = 32
"""Proposals of the inner sampler that may be known or invalid before one is drawn uniformly."""
REDRAW_TRIALS = 10_000
"""Trials that all redraws for one proposal may go through: TPE looks at each of them every time."""

CHOOSING_S = 10.0
"""Longest that another worker is waited for while its sampler thinks."""
CHOICE_POLL_S = 0.02
"""Least time between two looks at whether the worker before this one has chosen."""
POLLS_BY_WAIT = 0.2
"""Time between two looks, as a share of the wait so far."""
LOOK_S = 1.0
"""Time after which all running trials are looked at again: that worker may be gone."""

_TAKEN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING)
"""Failed trials are not in it: Optuna learns nothing from them, and what failed is tried again."""
MOST_FAILURES = 2
"""Failed trials of a config after which it is given up: the first may not have been its fault."""


def make_sampler(name: str, space: SearchSpace, *, seed: int) -> "HardwareSampler":
    """Return the sampler of a setting: `auto`, `tpe`, `gp`, `structured`, `grid` or `random`.

    `auto` is `structured`, `tpe` Optuna's multivariate one. On resume give another seed, or the
    start-up proposals are repeated.

    Raises:
        UsageError: `gp` without torch, which Optuna's GP needs.
    """
    if name == "gp":
        try:
            import torch  # noqa: F401
        except ImportError:
            raise UsageError(
                "--sampler gp must have torch, but got an environment without it; "
                "install the extra with: pip install -e '.[gp]', or use --sampler tpe"
            ) from None
    inner: BaseSampler | None = None
    if name == "gp":
        inner = GPSampler(seed=seed)
    elif name == "tpe":
        inner = TPESampler(seed=seed, multivariate=True)
    elif name in ("auto", "structured"):
        from tuner.search.structured import StructuredSampler

        inner = StructuredSampler(space, seed=seed)
    return HardwareSampler(space, inner, seed=seed, in_order=name == "grid")


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return the categorical distribution of each dimension."""
    return {name: CategoricalDistribution(c) for name, c in space.choices().items()}


def untried(study: Study, space: SearchSpace) -> list[HardwareConfig]:
    """Return the valid configs that no finished, running or queued trial has, in order."""
    tried = tried_of(study.get_trials(deepcopy=False), space)
    return [config for config in space.configs() if config not in tried]


def num_untried(trials: Iterable[FrozenTrial], space: SearchSpace) -> int:
    """Return how many configs `untried` returns, without a walk through the space."""
    configs = space.config_set()
    return len(configs) - len(configs & tried_of(trials, space))


def tried_of(trials: Iterable[FrozenTrial], space: SearchSpace) -> set[HardwareConfig | None]:
    """Return what finished, running and queued trials have; `None` is of those without a config."""
    return {suggested(trial, space) for trial in trials if trial.state in _TAKEN}


def given_up(
    study: Study, trials: Iterable[FrozenTrial], space: SearchSpace
) -> set[HardwareConfig]:
    """Return the configs that failed again and again; none in a study of tuner's.

    There a config that crashes twice ends as a pruned trial, and a failed one is no fault of it.
    """
    failed = Counter(suggested(t, space) for t in trials if t.state == TrialState.FAIL)
    again = {config for config, times in failed.items() if config and times >= MOST_FAILURES}
    return set() if again and "references" in study_facts(study) else again


def suggested(trial: FrozenTrial, space: SearchSpace) -> HardwareConfig | None:
    """Return the config that a trial has, or will have when it is taken from the queue."""
    return space.config_of({**trial.system_attrs.get("fixed_params", {}), **trial.params})


class SpaceExhausted(Exception):
    """Every config is taken: another worker took the last one after this trial had begun."""


class HardwareSampler(BaseSampler):
    """Asks an inner sampler until it proposes a valid, untried config; else draws one uniformly.

    Usable in any Optuna study whose objective suggests the `choices` of a `SearchSpace` in order,
    and after them whatever else it likes, which is drawn uniformly.
    """

    def __init__(
        self, space: SearchSpace, inner: BaseSampler | None, *, seed: int, in_order: bool = False
    ) -> None:
        """Wrap `inner`; without one, configs come at random, or `in_order` of the space."""
        self._space = space
        self._inner = inner
        self._in_order = in_order
        self._random = random.Random(seed)
        self._others = RandomSampler(seed=seed)

    def reseed_rng(self) -> None:
        """Take fresh random states, as Optuna asks of a sampler in a new worker."""
        self._random = random.Random()
        self._others.reseed_rng()
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
        queued = trial.system_attrs.get("fixed_params", {})
        fixed = {name: value for name, value in queued.items() if name in search_space}
        if fixed.keys() >= search_space.keys():
            return {}
        configs = self._space.config_set()
        if fixed:  # a process that was killed while it suggested has queued a part of a config
            configs = frozenset(c for c in configs if c.params().items() >= fixed.items())
        trials = study.get_trials(deepcopy=False)
        left = configs - tried_of(trials, self._space) - given_up(study, trials, self._space)
        proposals = (c for c in self._proposed(study, trial, search_space) if c in left)
        names = list(search_space)
        if _choosing(trials, trial, names):
            # The sampler thinks before it is this worker's turn: those behind it wait for less.
            first = next(proposals, None) if left else None
            left -= tried_of(_once_earlier_ones_chose(study, trial, names), self._space)
            if first in left:
                return first.params()
        if not left:
            return {}
        proposed = next(proposals, None)
        if proposed is not None:
            return proposed.params()
        in_order = [config for config in self._space.configs() if config in left]
        return (in_order[0] if self._in_order else self._random.choice(in_order)).params()

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
        """Draw what is no dimension of the space uniformly.

        A dimension drawn by itself could make a config that was measured already.

        Raises:
            SpaceExhausted: a dimension is asked for, and nothing is left to propose.
        """
        if param_name in self._space.choices():
            raise SpaceExhausted("every config of the space is taken")
        return self._others.sample_independent(study, trial, param_name, param_distribution)

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


def _once_earlier_ones_chose(
    study: Study, trial: FrozenTrial, names: Sequence[str]
) -> list[FrozenTrial]:
    """Return all trials once every running one with a lower number has its config.

    Or its worker is gone, or the wait has been long.

    Trial numbers are given one at a time, so workers choose in the order of their trials (as at
    Lamport's bakery): each sees what those before it have taken, and no two take the same. So it
    is enough to watch the one just before for the last of its dimensions' `names`.
    """
    began = time.monotonic()
    while True:
        trials = study.get_trials(deepcopy=False)
        choosing = _choosing(trials, trial, names)
        if not choosing or time.monotonic() - began > CHOOSING_S:
            return trials
        look_at = time.monotonic() + LOOK_S
        while (now := time.monotonic()) < look_at:
            time.sleep(max(CHOICE_POLL_S, POLLS_BY_WAIT * (now - began)))
            with suppress(KeyError):  # it has not chosen
                study._storage.get_trial_param(choosing[-1]._trial_id, names[-1])
                break


def _choosing(
    trials: Sequence[FrozenTrial], trial: FrozenTrial, names: Sequence[str]
) -> list[FrozenTrial]:
    """Return the running trials before one that have no config yet, and a worker who lives."""
    return [
        other
        for other in trials[: trial.number]
        if other.state == TrialState.RUNNING
        and not {*other.system_attrs.get("fixed_params", {}), *other.params}.issuperset(names)
        and not is_dead_here(other)
    ]
