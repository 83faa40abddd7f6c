"""The structured sampler in an Optuna study that knows nothing of tuner: values alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.tuner.search.test_sampler import suggest
from tuner.search.sampler import MOST_FAILURES, make_sampler
from tuner.search.structured import STARTUP
from tuner.space import CPU_SPACE, HardwareConfig

BEST = HardwareConfig(32, 32, 8, 2)
TRIALS = 25


def distance(config: HardwareConfig) -> float:
    """Return how many doublings a config is from the best one."""
    pairs = zip(config.as_dict().values(), BEST.as_dict().values(), strict=True)
    return sum(abs(math.log2(mine / best)) for mine, best in pairs)


def study_with(
    objective: Callable[[optuna.Trial], float],
    *,
    direction: str = "minimize",
    trials: int = TRIALS,
    catch: tuple[type[Exception], ...] = (),
    storage: str | None = None,
    workers: int = 1,
    seed: int = 0,
) -> optuna.Study:
    study = optuna.create_study(
        direction=direction,
        sampler=make_sampler("structured", CPU_SPACE, seed=seed),
        storage=storage,
    )
    study.optimize(objective, n_trials=trials, catch=catch, n_jobs=workers)
    return study


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_value_is_sought_in_the_direction_of_the_study(direction: str, seed: int) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = study_with(lambda t: sign * distance(suggest(t, CPU_SPACE)), direction=direction,
                       seed=seed)  # fmt: skip
    # 25 of 168 at random come within one doubling (7 configs) in two of three studies.
    assert abs(study.best_value) <= 1.0
    later = [abs(t.value or 0.0) for t in study.trials[STARTUP:]]
    assert sum(later) / len(later) < 3.5  # a config at random is 4.4 doublings away


def test_a_config_that_always_fails_is_given_up() -> None:
    def objective(trial: optuna.Trial) -> float:
        config = suggest(trial, CPU_SPACE)
        if config.num_envs == 32:
            raise RuntimeError("no such luck")
        return distance(config)

    study = study_with(objective, catch=(RuntimeError,))
    failed = [HardwareConfig(**t.params) for t in study.trials if t.state == TrialState.FAIL]
    assert failed
    assert all(failed.count(config) <= MOST_FAILURES for config in failed)
    assert study.best_value <= 2.0


@pytest.mark.parametrize("way", ["infinite", "pruned", "constrained"])
def test_what_does_not_work_is_kept_away_from(way: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        config = suggest(trial, CPU_SPACE)
        if config.num_envs < 64:
            return distance(config)
        if way == "pruned":
            raise optuna.TrialPruned
        if way == "constrained":
            trial.set_constraint("feasible", 1.0)
            return 0.0
        return math.inf

    study = study_with(objective)
    later = [t.params["num_envs"] for t in study.trials[STARTUP + 5 :]]
    # Of seven choices four do not work: at random more than half of the trials would be of them.
    assert sum(envs >= 64 for envs in later) / len(later) < 0.35


def test_other_parameters_are_drawn_beside_the_space(tmp_path: Path) -> None:
    def objective(trial: optuna.Trial) -> float:
        config = suggest(trial, CPU_SPACE)
        trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        return distance(config)

    study = study_with(objective, storage=f"sqlite:///{tmp_path / 'plain.db'}")
    rates = {t.params["learning_rate"] for t in study.trials}
    assert len(rates) == TRIALS
    tried = {tuple(t.params[name] for name in BEST.as_dict()) for t in study.trials}
    assert len(tried) == TRIALS
    assert study.best_value <= 1.0


def test_a_queued_parameter_that_is_no_dimension_leaves_the_space_free() -> None:
    study = study_with(lambda t: distance(suggest(t, CPU_SPACE)), trials=1)
    study.enqueue_trial({"learning_rate": 1e-3})
    study.enqueue_trial({"num_envs": 32, "learning_rate": 1e-3})

    def objective(trial: optuna.Trial) -> float:
        config = suggest(trial, CPU_SPACE)
        assert trial.suggest_float("learning_rate", 1e-4, 1e-2) == 1e-3
        return distance(config)

    study.optimize(objective, n_trials=2)
    assert study.trials[-1].params["num_envs"] == 32


def test_two_threads_never_try_the_same_config() -> None:
    study = study_with(lambda t: distance(suggest(t, CPU_SPACE)), workers=2)
    tried = [tuple(t.params.values()) for t in study.trials]
    assert len(tried) == len(set(tried)) == TRIALS


def test_of_what_may_gain_alike_the_quicker_is_tried_first() -> None:
    # Epochs make no difference to the value, and with speeds a large one to what a trial costs.
    def num_quick(*, told: bool) -> int:
        def objective(trial: optuna.Trial) -> float:
            config = suggest(trial, CPU_SPACE)
            if told:
                trial.set_user_attr("sps", 1e5 / config.num_epochs**3)
            return distance(replace(config, num_epochs=BEST.num_epochs))

        studies = [study_with(objective, seed=seed) for seed in range(3)]
        return sum(t.params["num_epochs"] == 2 for s in studies for t in s.trials[STARTUP:])

    assert num_quick(told=True) > num_quick(told=False)
