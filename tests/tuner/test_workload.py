from dataclasses import replace
from typing import Any

import pytest

from storage.profile import Profile
from tuner.config import StudyConfig, load_config
from tuner.errors import Refused, UsageError
from tuner.workload import OPTIONAL, config_of, workload_facts, workload_hash

SHAPES = {"obs_shape": [32], "num_actions": 3}


def config(**settings: object) -> StudyConfig:
    return load_config(settings, {}).resolved("cpu")


def profile(settings: StudyConfig, **changes: Any) -> Profile:
    measured = Profile(
        profile="balanced",
        num_envs=64,
        num_steps=64,
        num_minibatches=4,
        num_epochs=4,
        device="cpu",
        learning_rate=6e-4,
        lr_scaling="sqrt",
        workload=workload_facts(settings, SHAPES),
    )
    return replace(measured, **changes)


def test_a_profile_trains_the_workload_it_was_measured_on() -> None:
    settings = config(
        network=[32, 32],
        gamma=0.9,
        microbatch=64,
        env_params={"obs_dim": 8},
        learning_rate=3e-4,
        normalize_obs=True,
        lr_schedule="linear",
        lr_anneal_env_steps=10_000,
        clip_value_loss=True,
        vf_clip_eps=0.3,
    )
    again = config_of(profile(settings), {"runs_dir": "elsewhere"})
    # The learning rate is the effective one, never scaled again.
    expected = replace(
        settings.workload(), hyperparams={**settings.workload().hyperparams, "learning_rate": 6e-4}
    )
    assert again.workload() == expected
    assert str(again.runs_dir) == "elsewhere"


def test_the_hash_leaves_the_seed_out_and_nothing_else() -> None:
    facts = workload_facts(config(seed=1), SHAPES)
    assert facts["hash"] == workload_facts(config(seed=2), SHAPES)["hash"] == workload_hash(facts)
    for change in (
        {"gamma": 0.9},
        {"network": [8]},
        {"env_params": {"obs_dim": 9}},
        {"lr_schedule": "linear"},
        {"lr_anneal_env_steps": 1000},
        {"normalize_obs": True},
        {"normalize_reward": True},
        {"clip_value_loss": True},
        {"vf_clip_eps": 0.3},
    ):
        assert workload_facts(config(**change), SHAPES)["hash"] != facts["hash"]
    assert workload_facts(config(), {**SHAPES, "num_actions": 4})["hash"] != facts["hash"]


def test_a_profile_from_before_an_option_was_measured_without_it() -> None:
    facts = workload_facts(config(), SHAPES)
    for name in OPTIONAL:
        del facts[name]
    del facts["ppo"]["vf_clip_eps"]
    older = profile(config(), workload=facts | {"hash": workload_hash(facts)})
    assert config_of(older, {}).workload().hyperparams["vf_clip_eps"] == 0.2
    assert not config_of(older, {}).normalize_obs


@pytest.mark.parametrize("key", ["network", "activation", "normalize_obs", "env", "dtype", "ppo"])
def test_an_edited_workload_is_refused(key: str) -> None:
    edits: dict[str, Any] = {
        "network": [128, 128],
        "activation": "relu",
        "env": "gymnax:CartPole-v1",
        "dtype": "bfloat16",
        "ppo": {"gamma": 0.5},
        "normalize_obs": True,
    }
    honest = profile(config())
    edited = replace(honest, workload={**honest.workload, key: edits[key]})
    with pytest.raises(Refused, match=r"the workload must be the one that was measured.*edited"):
        config_of(edited, {})


def test_a_profile_without_its_workload_cannot_be_measured_again() -> None:
    with pytest.raises(UsageError, match=r"must name its workload.*lacks env, .*export it anew"):
        config_of(profile(config(), workload={}), {})


def test_scalars_that_ppo_does_not_have_are_refused() -> None:
    facts = {**workload_facts(config(), SHAPES), "ppo": {"gamma": 0.9, "momentum": 1.0}}
    odd = profile(config(), workload=facts | {"hash": workload_hash(facts)})
    with pytest.raises(UsageError, match="PPO's scalars only, but got momentum"):
        config_of(odd, {})


def test_an_edited_learning_rate_is_refused() -> None:
    honest = profile(config(learning_rate=6e-4), lr_scaling="none")
    assert config_of(honest, {}).learning_rate == 6e-4
    with pytest.raises(Refused, match=r"learning rate must be the one that was measured, 0\.0006"):
        config_of(replace(honest, learning_rate=0.5), {})


def test_a_trainer_of_the_users_is_never_run_from_a_profile() -> None:
    facts = {**workload_facts(config(), SHAPES), "trainer": "theirs:factory"}
    theirs = profile(config(), workload=facts | {"hash": workload_hash(facts)})
    with pytest.raises(Refused, match="but got trainer 'theirs:factory'"):
        config_of(theirs, {})
