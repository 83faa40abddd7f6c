import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.profile import Profile
from tuner.config import StudyConfig
from tuner.data_files import data_facts, refuse_other_data
from tuner.errors import Refused, UsageError
from tuner.settings import load_config
from tuner.workload import (
    OPTIONAL,
    config_of,
    require_named_code,
    require_sound,
    workload_facts,
    workload_hash,
)

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
        workload=workload_facts(settings, SHAPES, data_facts(settings)),
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
    facts = workload_facts(config(seed=1), SHAPES, {})
    assert (
        facts["hash"] == workload_facts(config(seed=2), SHAPES, {})["hash"] == workload_hash(facts)
    )
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
        {"adam_eps": 1e-5},
    ):
        assert workload_facts(config(**change), SHAPES, {})["hash"] != facts["hash"]
    assert workload_facts(config(), {**SHAPES, "num_actions": 4}, {})["hash"] != facts["hash"]


def test_a_profile_from_before_an_option_was_measured_without_it() -> None:
    facts = workload_facts(config(), SHAPES, {})
    for name in OPTIONAL:
        del facts[name]
    del facts["ppo"]["vf_clip_eps"], facts["ppo"]["adam_eps"]
    older = profile(config(), workload=facts | {"hash": workload_hash(facts)})
    assert config_of(older, {}).workload().hyperparams["vf_clip_eps"] == 0.2
    assert config_of(older, {}).workload().hyperparams["adam_eps"] == 1e-5
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
    facts = {**workload_facts(config(), SHAPES, {}), "ppo": {"gamma": 0.9, "momentum": 1.0}}
    odd = profile(config(), workload=facts | {"hash": workload_hash(facts)})
    with pytest.raises(UsageError, match="PPO's scalars only, but got momentum"):
        config_of(odd, {})


def test_an_edited_learning_rate_is_refused() -> None:
    honest = profile(config(learning_rate=6e-4), lr_scaling="none")
    assert config_of(honest, {}).learning_rate == 6e-4
    with pytest.raises(Refused, match=r"learning rate must be the one that was measured, 0\.0006"):
        config_of(replace(honest, learning_rate=0.5), {})


@pytest.fixture
def bars(tmp_path: Path) -> Path:
    path = tmp_path / "bars.csv"
    path.write_text("date,open,high,low,close,volume\n")
    return path


def test_bars_are_told_by_content_and_not_by_place(bars: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.csv"
    shutil.copy(bars, moved)
    first, second = (
        config(phase=1, data=str(path), bars=900, market="ES") for path in (bars, moved)
    )
    facts = [workload_facts(settings, SHAPES, data_facts(settings)) for settings in (first, second)]
    assert facts[0]["hash"] == facts[1]["hash"]
    sha256 = hashlib.sha256(bars.read_bytes()).hexdigest()
    assert facts[0]["data"] == {"path": str(bars), "sha256": sha256}
    for change in ({"bars": 901}, {"market": "NQ"}, {"point_value": 2.0}, {"tz": "UTC"}):
        other = config(**{"phase": 1, "data": str(bars), "bars": 900, "market": "ES"} | change)
        assert workload_facts(other, SHAPES, data_facts(other))["hash"] != facts[0]["hash"]
    moved.write_text("other")
    assert workload_facts(second, SHAPES, data_facts(second))["hash"] != facts[0]["hash"]


def test_a_profile_of_bars_finds_them_where_they_were_or_are_now(
    bars: Path, tmp_path: Path
) -> None:
    settings = config(phase=2, data=str(bars), finer_data=str(bars), bars=900)
    measured = profile(settings)
    again = config_of(measured, {})
    assert (again.env, again.phase, again.data, again.bars) == ("trading-phase2", 2, bars, 900)
    assert again.finer_data == bars
    moved = tmp_path / "moved.csv"
    shutil.copy(bars, moved)
    assert config_of(measured, {"data": str(moved)}).data == moved
    moved.write_text("other")
    with pytest.raises(Refused, match=r"data of a profile must stay.*give --data the file"):
        config_of(measured, {"data": str(moved)})
    with pytest.raises(UsageError, match=r"--data must be a CSV file that can be read.*nowhere"):
        config_of(measured, {"data": str(tmp_path / "nowhere.csv")})


def test_other_data_than_the_studys_are_refused() -> None:
    stored = {"data": {"path": "/a", "sha256": "0" * 64}}
    refuse_other_data(stored, {"data": {"path": "/b", "sha256": "0" * 64}}, "a study", "")
    with pytest.raises(Refused, match=r"000000000000…, but got 111111111111… in /b; start anew"):
        refuse_other_data(
            stored, {"data": {"path": "/b", "sha256": "1" * 64}}, "a study", "start anew"
        )


def test_code_of_the_users_runs_only_if_they_name_it() -> None:
    settings = config(env="theirs:make", trainer="theirs:trainer")
    measured = profile(settings, learning_rate=None)
    for given in ({}, {"env": "theirs:make"}, {"env": "theirs:make", "trainer": "mine:trainer"}):
        with pytest.raises(UsageError, match=r"a profile alone may not run code: name it yourself"):
            config_of(measured, given)
    again = config_of(measured, {"env": "theirs:make", "trainer": "theirs:trainer"})
    assert (again.env, again.trainer) == ("theirs:make", "theirs:trainer")


def test_an_environment_of_brax_is_no_code_of_the_users() -> None:
    measured = profile(config(env="brax:fast"))
    assert config_of(measured, {}).env == "brax:fast"
    with pytest.raises(UsageError, match=r"--trainer must have the form"):
        require_sound(load_config({"trainer": "brax:ant"}, {}))


def test_a_pipe_is_refused_and_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match=r"--data must be a CSV file .* no regular file; give"):
        data_facts(config(phase=1, data=str(pipe)))


def test_another_environment_than_the_profiles_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--env must be stress, as .*CartPole-v1; leave it out"):
        config_of(profile(config()), {"env": "gymnax:CartPole-v1"})
    assert config_of(profile(config()), {"env": "stress"}).env == "stress"


def test_a_trainer_has_no_scalars_of_ppo() -> None:
    facts = workload_facts(config(trainer="theirs:trainer"), SHAPES, {})
    assert facts["trainer"] == "theirs:trainer"
    assert {facts[name] for name in ("ppo", "network", "activation", "dtype", "microbatch")} == {
        None
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "stres"}, r"--env: the environment must be stress, .*did you mean stress\?"),
        ({"env": "envs.mine:make"}, r"--env: a factory must be in a module of your own"),
        ({"data": "x.csv"}, r"--data must go with a trading environment, but got --env stress"),
        ({"market": "ES"}, r"--market must go with a trading environment"),
        ({"phase": 1, "drop_bad_rows": True}, r"--drop-bad-rows must go with --data"),
        ({"phase": 1, "tz": "UTC"}, r"--tz must go with --data"),
        ({"phase": 1, "market": "BTC"}, r"--market must be one of ES, .*needs --point-value"),
        ({"phase": 1, "finer_data": "x.csv"}, r"--finer-data must go with --data"),
        ({"trainer": "mine"}, r"--trainer must have the form package.module:factory, but got"),
        ({"trainer": "tuner.x:make"}, r"--trainer: a factory must be in a module of your own"),
        (
            {"trainer": "mine:make", "gamma": 0.9},
            r"--gamma must be left out with a trainer of your own.*0.9; set it inside mine:make",
        ),
        ({"trainer": "mine:make", "lr_scaling": "sqrt"}, r"--lr-scaling must be left out"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        require_sound(load_config(settings, {}))


@pytest.mark.parametrize(
    "broken",
    [
        {"data": "/dev/zero"},
        {"data": {"path": "bars.csv"}},
        {"data": {"path": "a\0b", "sha256": "x"}},
        {"data": {"path": ["bars.csv"], "sha256": "x"}},
        {"market": [["market"]]},
        {"market": {"finer_data": 5}},
    ],
)
def test_bars_of_a_profile_that_are_none_are_refused(broken: dict[str, Any]) -> None:
    measured = profile(config(phase=1))
    facts = {**measured.workload, **broken}
    facts["hash"] = workload_hash(facts)
    with pytest.raises(UsageError, match="the bars of a profile must be keys and values"):
        config_of(replace(measured, workload=facts), {})


def test_data_of_a_profile_that_never_end_are_refused() -> None:
    measured = profile(config(phase=1))
    facts = {**measured.workload, "data": {"path": "/dev/zero", "sha256": "x"}}
    facts["hash"] = workload_hash(facts)
    with pytest.raises(UsageError, match=r"--data must be .* /dev/zero: no regular file"):
        config_of(replace(measured, workload=facts), {})


def test_a_file_of_settings_runs_code_only_if_a_flag_names_it() -> None:
    named = config(env="my_env:make")
    require_named_code(named, {"env": "my_env:make"}, Path("study.yaml"))
    require_named_code(config(), {}, Path("study.yaml"))
    with pytest.raises(
        UsageError, match=r"from study\.yaml, which alone may not run it; add --env"
    ):
        require_named_code(named, {"env": None}, Path("study.yaml"))
