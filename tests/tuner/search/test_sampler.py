"""The sampler in real Optuna studies with a synthetic objective."""

import math
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from storage.recovery import CONSTRAINT, queue_again
from tuner.search.pruner import make_pruner
from tuner.search.sampler import distributions, make_sampler, untried
from tuner.space import HardwareConfig, SearchSpace, config_of

SPACE = SearchSpace((2, 3, 4, 6), (4, 8, 16), (2, 3, 5), (1, 2))
NUM_VALID = 36
"""Of 4 × 3 × 3 × 2 = 72: 2 divides all 12 batches, 3 those of 3 and 6 envs (6), 5 none; × 2 epochs.
"""
SAMPLERS = ("auto", "tpe", "random", "grid")


class Interrupted(Exception):
    """Makes a trial FAIL."""


def make_study(name: str, *, seed: int = 0, space: SearchSpace = SPACE) -> optuna.Study:
    return optuna.create_study(sampler=make_sampler(name, space, seed=seed), direction="maximize")


def suggest(trial: optuna.Trial, space: SearchSpace = SPACE) -> HardwareConfig:
    for name, choices in space.choices().items():
        trial.suggest_categorical(name, choices)
    config = config_of(trial.params)
    assert config is not None
    return config


def landscape(config: HardwareConfig) -> float:
    """Score a config: highest at 4 envs and 8 steps."""
    return -abs(math.log2(config.num_envs / 4)) - abs(math.log2(config.num_steps / 8))


def objective(trial: optuna.Trial) -> float:
    return landscape(suggest(trial))


def proposed(study: optuna.Study) -> list[HardwareConfig]:
    return [config for t in study.trials if (config := config_of(t.params)) is not None]


def run(study: optuna.Study, function: Callable[[optuna.Trial], float], n: int) -> None:
    study.optimize(function, n_trials=n, catch=(Interrupted,))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_whole_space_is_proposed_and_nothing_twice(name: str) -> None:
    study = make_study(name)
    run(study, objective, NUM_VALID)
    assert len(set(proposed(study))) == NUM_VALID
    assert set(proposed(study)) == set(SPACE.configs())
    assert untried(study, SPACE) == []


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_combination_that_does_not_divide_is_never_proposed(name: str, seed: int) -> None:
    study = make_study(name, seed=seed)
    run(study, objective, 25)
    assert all(config.is_valid for config in proposed(study))
    assert len(set(proposed(study))) == 25


def test_a_grid_is_walked_in_the_order_of_the_space() -> None:
    study = make_study("grid")
    run(study, objective, NUM_VALID)
    assert proposed(study) == SPACE.configs()


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_makes_the_same_proposals(name: str) -> None:
    one, other = make_study(name, seed=7), make_study(name, seed=7)
    run(one, objective, 20)
    run(other, objective, 20)
    assert proposed(one) == proposed(other)


@pytest.mark.parametrize("name", ["auto", "tpe", "random"])
def test_another_seed_makes_other_proposals(name: str) -> None:
    one, other = make_study(name, seed=7), make_study(name, seed=8)
    run(one, objective, 10)
    run(other, objective, 10)
    assert proposed(one) != proposed(other)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_infeasible_config_is_never_proposed_again(name: str) -> None:
    def refuse_large(trial: optuna.Trial) -> float:
        config = suggest(trial)
        trial.set_constraint(CONSTRAINT, 1.0 if config.num_envs == 6 else 0.0)
        if config.num_envs == 6:
            raise optuna.TrialPruned
        return landscape(config)

    study = make_study(name)
    run(study, refuse_large, NUM_VALID)
    # 6 envs: 3 steps choices × (2 or 3 minibatches) × 2 epochs = 12 configs, each refused once.
    pruned = [t for t in study.trials if t.state is TrialState.PRUNED]
    assert len(pruned) == 12
    assert len(set(proposed(study))) == NUM_VALID


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_failed_config_may_be_proposed_again(name: str) -> None:
    def fail_once(trial: optuna.Trial) -> float:
        config = suggest(trial)
        if trial.number == 0:
            raise Interrupted
        return landscape(config)

    study = make_study(name)
    run(study, fail_once, 1)
    assert len(untried(study, SPACE)) == NUM_VALID
    run(study, fail_once, NUM_VALID)
    done = [t for t in study.trials if t.state is TrialState.COMPLETE]
    assert {config_of(t.params) for t in done} == set(SPACE.configs())


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_queued_config_is_served_first_and_not_proposed_beside(name: str) -> None:
    study = make_study(name)
    wanted = HardwareConfig(6, 16, 3, 2)
    study.enqueue_trial(wanted.as_dict())
    assert wanted not in untried(study, SPACE)
    run(study, objective, NUM_VALID)
    assert proposed(study)[0] == wanted
    assert len(set(proposed(study))) == NUM_VALID


def test_a_trial_that_failed_and_was_queued_again_is_served_once() -> None:
    def fail_first(trial: optuna.Trial) -> float:
        config = suggest(trial)
        if trial.number == 0:
            queue_again(trial.study, trial.number)
            raise Interrupted
        return landscape(config)

    study = make_study("tpe")
    run(study, fail_first, NUM_VALID + 1)
    first, second, *others = proposed(study)
    assert first == second
    assert first not in others
    assert len({second, *others}) == NUM_VALID


def test_a_running_config_is_not_proposed_to_another_worker() -> None:
    study = make_study("tpe")
    trials = [study.ask(distributions(SPACE)) for _ in range(NUM_VALID)]
    assert len({config_of(trial.params) for trial in trials}) == NUM_VALID


def test_a_known_baseline_is_not_proposed() -> None:
    study = make_study("tpe")
    baseline = HardwareConfig(4, 8, 2, 1)
    study.add_trial(
        optuna.trial.create_trial(
            params=baseline.as_dict(), distributions=distributions(SPACE), value=0.0
        )
    )
    run(study, objective, NUM_VALID - 1)
    assert proposed(study).count(baseline) == 1
    assert untried(study, SPACE) == []


def test_a_baseline_without_parameters_leaves_the_space_whole() -> None:
    study = make_study("tpe")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    assert len(untried(study, SPACE)) == NUM_VALID
    run(study, objective, NUM_VALID)
    assert set(proposed(study)) == set(SPACE.configs())


def test_tpe_finds_the_best_config_in_fewer_trials_than_chance() -> None:
    # On 168 configs chance needs 84.5 trials for the best one, on average.
    space = SearchSpace((8, 16, 32, 64, 128, 256, 512), (16, 32, 64, 128), (2, 4, 8), (2, 4))
    best = HardwareConfig(128, 64, 8, 4)

    def score(trial: optuna.Trial) -> float:
        config = suggest(trial, space)
        return -sum(
            abs(math.log2(getattr(config, name) / getattr(best, name))) for name in space.choices()
        )

    trials_needed = []
    for seed in range(3):
        study = make_study("tpe", seed=seed, space=space)
        run(study, score, 45)
        found = proposed(study)
        trials_needed.append(found.index(best) if best in found else 168)
    assert sorted(trials_needed)[1] < 45


def test_a_parameter_that_is_missing_makes_no_config() -> None:
    assert config_of({"num_envs": 8, "num_steps": 16, "num_minibatches": 2}) is None
    assert config_of({}) is None


def test_the_median_pruner_cuts_the_worse_half_and_none_cuts_nothing() -> None:
    def report(trial: optuna.Trial) -> float:
        trial.report(-float(trial.number), step=1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return 0.0

    states = {}
    for name in ("median", "none"):
        study = optuna.create_study(pruner=make_pruner(name), direction="maximize")
        study.optimize(report, n_trials=8)
        states[name] = [t.state for t in study.trials].count(TrialState.PRUNED)
    # Five trials are let through; the next three lag behind their median.
    assert states == {"median": 3, "none": 0}
