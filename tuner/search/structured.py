"""The sampler `structured`: proposes by what is known of the structure of hardware configs.

In a study of tuner's it knows what the score is made of, and expects something of every config as
soon as the baseline is measured. Usable in any other Optuna study whose objective suggests the
dimensions of a space: it then models the value alone, and the speed where trials carry the user
attribute `sps` (env-steps per second); so it does where a study of tuner's seeks seconds to a
return. What was pruned, violates a constraint, has no finite value or failed twice is then taken
for as bad as the worst of the values that are modelled.

Made by `tuner.search.sampler.make_sampler`, which sees to it that queued configs are respected and
that no two workers try the same one.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from storage.records import TrialRecord
from storage.studies import study_facts
from tuner.aggregate import hardware_of
from tuner.references import References
from tuner.search.expectation import Measured, ScoreModel
from tuner.search.known import MEASUREMENTS_ATTR, OUT_OF_MEMORY, KnownRecords, fitting_of
from tuner.search.model import Array, expected_improvement
from tuner.search.priors import PRIORS, Priors
from tuner.search.sampler import distributions, given_up, suggested, tried_of
from tuner.search.surrogate import Scale, Surrogate
from tuner.space import HardwareConfig, SearchSpace

STARTUP = 5
"""Trials that are spread over the space before the value alone is modelled."""


CANDIDATES = 4_000
"""Untried configs that are compared; of more so many at random, or a proposal takes seconds."""
MOST_VALUES = 100
"""Values that the value alone is modelled from; of more the best: its lengths are fitted anew."""
LOST = ("diverged", "timeout", "crashed")
"""Ends of trials whose config does not work here, whatever its memory."""
LEAST = 1e-6
"""What a score counts for beside its gain: it decides where nothing is expected to gain."""


class StructuredSampler(BaseSampler):
    """Proposes what may improve most for its cost."""

    def __init__(self, space: SearchSpace, *, seed: int, priors: Priors | None = None) -> None:
        """Sample from `space`; `priors` stand in for those of a study's kind of device."""
        self._priors = priors
        self._space = space
        self._configs = space.configs()
        self._random = random.Random(seed)
        self._draws = np.random.default_rng(seed)
        self._known = KnownRecords()
        self._independent = RandomSampler(seed=seed)
        self._scale = Scale.of(space)
        self._points = self._scale.points(self._configs)

    def reseed_rng(self) -> None:
        """Take fresh random states, as Optuna asks of a sampler in a new worker."""
        self._random = random.Random()
        self._draws = np.random.default_rng()
        self._independent.reseed_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the dimensions."""
        return distributions(self._space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the config to try next; {} when all have been tried."""
        trials = study.get_trials(deepcopy=False)
        failed = given_up(study, trials, self._space)
        tried = tried_of(trials, self._space) | failed
        records = self._known.of(trials)
        untried = [config for config in self._configs if config not in tried]
        # Where none is left that may fit, the others are refused one by one.
        untried = fitting_of(untried, records) or untried
        if not untried:
            return {}
        facts = study_facts(study)
        if (references := _references(facts)) is not None:
            priors = self._priors or _priors(facts)
            return self._most_promising(trials, records, references, priors, untried).params()
        places = {config: i for i, config in enumerate(self._configs)}
        left = [places[config] for config in untried]
        seen = {c: t for t in trials if _has_worked(t) and (c := self._config_of(t)) in places}
        taken = [places[c] for c in tried if c in places]
        if len(seen) < STARTUP:
            return self._configs[self._spread(left, taken)].params()
        too_large = {hardware_of(r) for r in records if r.status in OUT_OF_MEMORY}
        ended = (c for t in trials if t.state.is_finished() and (c := self._lost_config(t, failed)))
        lost = [c for c in dict.fromkeys(ended) if c in places and c not in too_large]
        return self._configs[self._promising(study, seen, lost, left)].params()

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw uniformly: what is no dimension, and any of them once the space is exhausted."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _most_promising(
        self,
        trials: list[FrozenTrial],
        records: list[TrialRecord],
        references: References,
        priors: Priors,
        fitting: list[HardwareConfig],
    ) -> HardwareConfig:
        """Return what is expected to raise the best score most for what it costs."""
        running = [
            config
            for trial in trials
            if trial.state == TrialState.RUNNING and (config := self._config_of(trial)) is not None
        ]
        lost = [hardware_of(r) for r in records if r.status in LOST]
        model = ScoreModel(
            references.scores(),
            _measured(trials, records),
            running,
            lost,
            env_steps=references.env_steps,
            priors=priors,
        )
        if len(fitting) > CANDIDATES:
            fitting = self._random.sample(fitting, CANDIDATES)
        worked = [
            hardware_of(r)
            for r in records
            if r.final_score is not None and r.quality_acceptable is not False
        ]
        known = list(dict.fromkeys([*worked, *running]))
        # What is being measured, or was measured with luck, need not be as good once more.
        both = model.draw([*known, *fitting], random=self._draws)
        best = both[: len(known)].mean(axis=1).max(initial=0.0)
        drawn = both[len(known) :]
        gain = np.maximum(0.0, drawn - best).mean(axis=1)
        worth = gain / _cost(model.sps(fitting)) + LEAST * drawn.mean(axis=1)
        return fitting[int(np.argmax(worth))]

    def _config_of(self, trial: FrozenTrial) -> HardwareConfig | None:
        return suggested(trial, self._space)

    def _lost_config(
        self, trial: FrozenTrial, failed: set[HardwareConfig]
    ) -> HardwareConfig | None:
        """Return the config of a trial that shows that it does not work; what failed once may."""
        config = self._config_of(trial)
        is_lost = config in failed if trial.state == TrialState.FAIL else not _has_worked(trial)
        return config if is_lost else None

    def _spread(self, left: list[int], taken: list[int]) -> int:
        """Return a config far from those that were tried, one of the farthest at random."""
        if not taken:
            return self._random.choice(left)
        gaps = self._points[left][:, None, :] - self._points[taken][None, :, :]
        distance = np.sqrt((gaps**2).sum(-1)).min(axis=1)
        farthest = np.argsort(-distance)[: max(1, len(left) // 8)]
        return left[int(self._random.choice(list(farthest)))]

    def _promising(
        self,
        study: optuna.Study,
        seen: Mapping[HardwareConfig, FrozenTrial],
        lost: list[HardwareConfig],
        left: list[int],
    ) -> int:
        """Return the config of most promise; those `lost` are as bad as the worst that was seen."""
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        best = sorted(seen.items(), key=lambda item: sign * _value(item[1]))[-MOST_VALUES:]
        values = [sign * _value(trial) for _, trial in best]
        lost = lost[-MOST_VALUES:]
        targets = np.array(values + [min(values)] * len(lost))
        candidates = [self._configs[i] for i in left]
        rates = [trial.user_attrs.get("sps") for _, trial in best] + [None] * len(lost)
        configs = [*(config for config, _ in best), *lost]
        model = Surrogate(self._scale, configs, targets, rates)
        mean, deviation = model.predict(candidates)
        gain = expected_improvement(mean, deviation, float(targets.max()))
        if model.speed is not None:
            gain = gain / _cost(np.array([model.speed.sps(config) for config in candidates]))
        return left[int(np.argmax(gain))]


def _cost(sps: Array) -> Array:
    """Return how long each config takes beside the quickest, mildly: half is set-up."""
    window = sps.max() / sps
    return np.asarray(np.sqrt(0.5 + 0.5 * window))


def _priors(facts: dict[str, Any]) -> Priors:
    """Return what is expected on a study's kind of device; any accelerator is taken for a GPU."""
    return PRIORS.get(facts.get("hardware", {}).get("kind"), PRIORS["gpu"])


def _references(facts: dict[str, Any]) -> References | None:
    """Return what a study of tuner's scores by; None for any other, or where seconds are sought."""
    stored = facts.get("references")
    if stored is None:
        return None
    references = References.from_json(stored)
    return None if references.target_s is not None else references


def _measured(trials: Sequence[FrozenTrial], records: Sequence[TrialRecord]) -> list[Measured]:
    """Return what records say of their configs; the baseline's may be of several measurements."""
    baseline_times = trials[0].user_attrs.get(MEASUREMENTS_ATTR, 1)
    return [
        parts
        for record in records
        if (parts := _parts(record, baseline_times if record.trial == 0 else 1)) is not None
    ]


def _parts(record: TrialRecord, times: int) -> Measured | None:
    """Return what a record says of its config: means of `times` measurements; None of nothing."""
    parts = (record.device_util, record.quality_score, record.sps)
    return None if parts == (None, None, None) else Measured(hardware_of(record), *parts, times)


def _has_worked(trial: FrozenTrial) -> bool:
    """Whether a trial has a value to learn from, of a config that violates no constraint."""
    return (
        trial.state == TrialState.COMPLETE
        and math.isfinite(_value(trial))
        and all(violated <= 0 for violated in trial.constraints.values())
    )


def _value(trial: FrozenTrial) -> float:
    if trial.value is None:
        raise ValueError(f"a complete trial must have a value, but {trial.number} has none")
    return trial.value
