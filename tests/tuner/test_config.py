"""Settings: by flag, by file, both; round trips; what a device fills in."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.conftest import Finished
from tests.tuner.studies import PATIENCE_S, TUNER
from tuner.config import HYPERPARAMS, StudyConfig, flag
from tuner.errors import UsageError
from tuner.flags import STUDY, TRAINING, with_values
from tuner.score import Weights
from tuner.settings import load_config, read_settings
from tuner.space import HardwareConfig

# Each setting: as a flag says it, as a file says it (another value), and both as they are kept.
SETTINGS: dict[str, tuple[Any, Any, Any, Any]] = {
    "env": ("gymnax:CartPole-v1", "gymnax:Pong-misc", "gymnax:CartPole-v1", "gymnax:Pong-misc"),
    "phase": ("2", 1, 2, 1),
    "trainer": ("mine:make", "my.other:make", "mine:make", "my.other:make"),
    "data": ("/a.csv", "/b.csv", Path("/a.csv"), Path("/b.csv")),
    "finer_data": ("/c.csv", "/d.csv", Path("/c.csv"), Path("/d.csv")),
    "market": ("ES", "MNQ", "ES", "MNQ"),
    "tz": ("Europe/Berlin", "UTC", "Europe/Berlin", "UTC"),
    "bars": ("1000", 2000, 1000, 2000),
    "drop_bad_rows": ("true", False, True, False),
    "point_value": ("12.5", 3, 12.5, 3.0),
    "env_params": (["rho=0.5"], {"rho": 0.25}, {"rho": 0.5}, {"rho": 0.25}),
    "learning_rate": ("1e-3", 0.002, 0.001, 0.002),
    "lr_scaling": ("sqrt", "none", "sqrt", "none"),
    "lr_schedule": ("linear", "constant", "linear", "constant"),
    "lr_anneal_env_steps": ("4096", 8192, 4096, 8192),
    "gamma": ("0.9", 0.95, 0.9, 0.95),
    "gae_lambda": ("0.9", 0.8, 0.9, 0.8),
    "clip_eps": ("0.1", 0.3, 0.1, 0.3),
    "ent_coef": ("0", 0.02, 0.0, 0.02),
    "vf_coef": ("1", 0.25, 1.0, 0.25),
    "max_grad_norm": ("1", 2, 1.0, 2.0),
    "adam_eps": ("1e-6", 1e-7, 1e-6, 1e-7),
    "clip_value_loss": ("true", False, True, False),
    "vf_clip_eps": ("0.1", 0.3, 0.1, 0.3),
    "normalize_obs": ("true", False, True, False),
    "normalize_reward": ("true", False, True, False),
    "network": ("64,32", [32, 64], (64, 32), (32, 64)),
    "activation": ("swish", "elu", "swish", "elu"),
    "dtype": ("bfloat16", "float32", "bfloat16", "float32"),
    "microbatch": ("512", 1024, 512, 1024),
    "num_envs": ("16,8", [32, 64], (8, 16), (32, 64)),
    "num_steps": ("32", 64, (32,), (64,)),
    "num_minibatches": ("4,2", "2,8", (2, 4), (2, 8)),
    "num_epochs": ("1", [2], (1,), (2,)),
    "baseline": (
        "16,16,2,2", [8, 8, 2, 1], HardwareConfig(16, 16, 2, 2), HardwareConfig(8, 8, 2, 1)
    ),
    "only": (
        "16,16,2,2; 8,8,2,1", [[8, 8, 2, 1]],
        (HardwareConfig(8, 8, 2, 1), HardwareConfig(16, 16, 2, 2)), (HardwareConfig(8, 8, 2, 1),),
    ),
    "baseline_replicates": ("4", 5, 4, 5),
    "trials": ("7", 8, 7, 8),
    "budget": ("45m", "1h", 2700.0, 3600.0),
    "timeout": ("90s", 60, 90.0, 60.0),
    "patience": ("3", 4, 3, 4),
    "min_gain": ("0.1", 0.2, 0.1, 0.2),
    "until_regret": ("1%", 0.00001, 0.01, 0.00001),
    "min_trials": ("5", 6, 5, 6),
    "env_steps": ("4096", 8192, 4096, 8192),
    "goal": ("time-to-return", "composite", "time-to-return", "composite"),
    "sampler": ("grid", "random", "grid", "random"),
    "warm_start": (
        ["/a.yaml,/b.yaml", "/c.yaml"], ["/d.yaml"],
        (Path("/a.yaml"), Path("/b.yaml"), Path("/c.yaml")), (Path("/d.yaml"),),
    ),
    "pruner": ("median", "none", "median", "none"),
    "seed": ("3", 4, 3, 4),
    "weights": ("1,0,0", [0, 1, 1], (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)),
    "min_feasible": ("1", 2, 1, 2),
    "repeat_disturbed": ("false", True, False, True),
    "probe": ("false", True, False, True),
    "memory_limit": ("2GB", "1GiB", 2_000_000_000, 1_073_741_824),
    "reserve": ("1GB", 5, 1_000_000_000, 5),
    "workers": ("2", 3, 2, 3),
    "devices": ("1,0", [2], (1, 0), (2,)),
    "storage": ("sqlite:///a.db", "sqlite:///b.db", "sqlite:///a.db", "sqlite:///b.db"),
    "runs_dir": ("here", "there", Path("here"), Path("there")),
    "cache_dir": ("c1", "c2", Path("c1"), Path("c2")),
}  # fmt: skip


def written(folder: Path, **settings: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_every_setting_is_tested_here() -> None:
    assert set(SETTINGS) == set(StudyConfig.model_fields)


@pytest.mark.parametrize("command", ["start", "resume"])
def test_every_setting_is_a_flag_of_start_and_resume(command: str) -> None:
    help_text = subprocess.run(
        [TUNER, command, "--help"], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    ).stdout
    flags = set(re.findall(r"^  (?:-c, )?(--[a-z-]+)", help_text, re.MULTILINE))
    own = {"--help", "--config" if command == "start" else "--allow-mixed"}
    assert flags == {flag(name) for name in SETTINGS} | own
    assert flag("env_params") == "--env-param"
    assert flag("num_envs") == "--num-envs"


def test_every_setting_is_described() -> None:
    for part in {*STUDY, *TRAINING}:
        for name, field in part.model_fields.items():
            assert field.description, name


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_from_a_flag(name: str) -> None:
    by_flag, _, expected, _ = SETTINGS[name]
    assert getattr(load_config(None, {name: by_flag}), name) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_read_from_a_file(name: str, tmp_path: Path) -> None:
    _, in_file, _, expected = SETTINGS[name]
    assert getattr(load_config(written(tmp_path, **{name: in_file}), {}), name) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_a_flag_wins_over_the_file(name: str, tmp_path: Path) -> None:
    by_flag, in_file, expected, _ = SETTINGS[name]
    path = written(tmp_path, **{name: in_file})
    assert getattr(load_config(path, {name: by_flag}), name) == expected


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_survives_its_own_yaml(name: str, tmp_path: Path) -> None:
    config = load_config(None, {name: SETTINGS[name][0]})
    path = tmp_path / "config.yaml"
    path.write_text(config.as_yaml())
    assert load_config(path, {}) == config


def test_all_settings_together_survive_their_own_yaml(tmp_path: Path) -> None:
    flags = {name: values[0] for name, values in SETTINGS.items() if name != "phase"}
    config = load_config(None, flags)
    path = tmp_path / "config.yaml"
    path.write_text(config.as_yaml())
    assert load_config(path, {}) == config
    assert load_config(config.as_data(), {}) == config


def test_flags_that_were_not_given_leave_the_file_alone(tmp_path: Path) -> None:
    path = written(tmp_path, trials=8)
    assert load_config(path, dict.fromkeys(SETTINGS)).trials == 8
    assert load_config(path, {"env_params": [], "seed": "0"}).trials == 8


def test_an_env_param_flag_is_added_to_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, env_params={"rho": 0.5, "obs_dim": 8})
    config = load_config(path, {"env_params": ["obs_dim=16"]})
    assert config.env_params == {"rho": 0.5, "obs_dim": 16}


@pytest.mark.parametrize(
    ("in_file", "flags", "env", "phase"),
    [
        ({}, {}, "stress", None),
        ({}, {"phase": "1"}, "trading-phase1", 1),
        ({}, {"env": "trading-phase2"}, "trading-phase2", 2),
        ({}, {"env": "trading-phase2", "phase": "2"}, "trading-phase2", 2),
        ({"phase": 1}, {}, "trading-phase1", 1),
        ({"phase": 1}, {"phase": "2"}, "trading-phase2", 2),
        ({"phase": 1}, {"env": "stress"}, "stress", None),
        ({"env": "stress"}, {"phase": "1"}, "trading-phase1", 1),
        ({"env": "trading-phase1", "phase": 1}, {"phase": "2"}, "trading-phase2", 2),
    ],
)
def test_a_phase_is_short_for_its_environment(
    in_file: dict[str, Any], flags: dict[str, Any], env: str, phase: int | None
) -> None:
    config = load_config(in_file, flags)
    assert (config.env, config.phase) == (env, phase)


@pytest.mark.parametrize(
    ("in_file", "flags"),
    [({}, {"phase": "1", "env": "trading-phase2"}), ({"phase": 1, "env": "stress"}, {})],
)
def test_a_phase_and_another_environment_are_refused(
    in_file: dict[str, Any], flags: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match="--phase must be that of the environment, but got 1"):
        load_config(in_file, flags)


def test_data_are_kept_by_their_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None, {"data": "bars.csv"}).data == tmp_path / "bars.csv"


def test_a_switch_may_stand_alone() -> None:
    given = ["start", "--drop-bad-rows", "demo", "--probe", "false", "--normalize-obs"]
    assert with_values(given) == [
        "start", "--drop-bad-rows", "true", "demo", "--probe", "false", "--normalize-obs", "true"
    ]  # fmt: skip
    assert with_values(["start", "demo"]) == ["start", "demo"]


def test_only_trading_environments_have_bars() -> None:
    assert load_config(None, {}).market_source() is None
    source = load_config(None, {"phase": "1", "data": "/a.csv", "bars": "900"}).market_source()
    assert source == {
        "data": "/a.csv",
        "finer_data": None,
        "market": "NQ",
        "tz": None,
        "bars": 900,
        "drop_bad_rows": False,
        "point_value": None,
    }


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("# nothing yet\n")
    assert read_settings(path) == {}
    assert load_config(path, {}) == StudyConfig()


def test_the_config_of_a_study_is_resolved_and_reads_back(finished: Finished) -> None:
    path = finished.studies.folder / "runs" / "done" / "config.yaml"
    config = load_config(path, {})
    assert config.num_envs == (8, 16)
    assert config.baseline == HardwareConfig(32, 16, 2, 2)
    assert config.env_params == {"obs_dim": 8}
    assert config.as_yaml() == path.read_text()
    assert finished.studies.facts("done")["config"] == config.as_data()


def test_a_password_is_not_kept() -> None:
    config = load_config(None, {"storage": "postgresql+psycopg://me:s3cret@host/db"})
    assert "s3cret" not in config.as_yaml()


def test_a_cpu_gets_the_cpu_space_and_small_networks() -> None:
    config = StudyConfig().resolved("cpu")
    assert config.num_envs == (8, 16, 32, 64, 128, 256, 512)
    assert config.num_steps == (16, 32, 64, 128)
    assert config.num_minibatches == (2, 4, 8)
    assert config.num_epochs == (2, 4)
    assert len(config.space().configs()) == 168
    assert config.baseline == HardwareConfig(64, 64, 4, 4)
    assert config.network == (64, 64)
    assert config.env_params == {"obs_dim": 32}
    assert config.score_weights() == Weights(0.2, 0.6, 0.2)


def test_a_gpu_gets_the_gpu_space_and_large_networks() -> None:
    config = StudyConfig().resolved("gpu")
    assert config.num_envs == (512, 1024, 2048, 4096, 8192, 12288, 16384)
    assert config.num_steps == (128, 256, 384, 512)
    assert config.num_minibatches == (4, 8, 16)
    assert config.num_epochs == (4, 8)
    assert len(config.space().configs()) == 168
    assert config.baseline == HardwareConfig(2048, 128, 8, 4)
    assert config.network == (256, 256)
    assert config.env_params == {"obs_dim": 128}
    assert config.score_weights() == Weights(0.4, 0.4, 0.2)


def test_the_defaults_of_stopping_and_scoring_are_those_of_the_contract() -> None:
    config = StudyConfig()
    assert (config.trials, config.budget, config.timeout) == (None, None, 300.0)
    assert (config.patience, config.min_trials, config.min_feasible) == (15, 20, 3)
    assert (config.sampler, config.pruner, config.lr_scaling) == ("auto", "none", "none")


def test_what_the_user_gave_is_not_filled_in() -> None:
    given = {"num_envs": "4", "baseline": "4,4,2,1", "network": "8", "env_params": ["obs_dim=5"],
             "weights": "0,1,1"}  # fmt: skip
    config = load_config(None, given).resolved("gpu")
    assert config.score_weights() == Weights(0.0, 1.0, 1.0)
    assert config.num_envs == (4,)
    assert config.baseline == HardwareConfig(4, 4, 2, 1)
    assert (config.network, config.env_params) == ((8,), {"obs_dim": 5})
    assert config.num_steps == (128, 256, 384, 512)


def test_an_environment_other_than_stress_gets_no_params() -> None:
    assert load_config(None, {"env": "gymnax:CartPole-v1"}).resolved("cpu").env_params == {}


def test_sqrt_scaling_follows_the_minibatch() -> None:
    given = {"lr_scaling": "sqrt", "learning_rate": "1e-3", "baseline": "16,16,4,2"}
    config = load_config(None, given)
    # The baseline's minibatch is 64; of (64, 16, 4, 2) it is 256: √4 = 2.
    assert config.learning_rate_for(HardwareConfig(64, 16, 4, 2)) == pytest.approx(2e-3)
    assert config.learning_rate_for(HardwareConfig(16, 16, 4, 8)) == 1e-3
    unscaled = load_config(None, given | {"lr_scaling": "none"})
    assert unscaled.learning_rate_for(HardwareConfig(64, 16, 4, 2)) == 1e-3


def test_a_workload_carries_every_scalar_of_ppo() -> None:
    config = load_config(None, {name: SETTINGS[name][0] for name in HYPERPARAMS}).resolved("cpu")
    assert config.workload().hyperparams == {name: SETTINGS[name][2] for name in HYPERPARAMS}


def test_a_workload_carries_every_option_of_ppo() -> None:
    names = ("lr_schedule", "normalize_obs", "normalize_reward", "clip_value_loss")
    options = (*names, "lr_anneal_env_steps")
    given = load_config(None, {name: SETTINGS[name][0] for name in options}).resolved("cpu")
    assert {name: getattr(given.workload(), name) for name in options} == {
        name: SETTINGS[name][2] for name in options
    }
    plain = StudyConfig().resolved("cpu").workload()
    assert [getattr(plain, name) for name in names] == ["constant", False, False, False]
    assert plain.lr_anneal_env_steps is None


def test_settings_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        StudyConfig().trials = 4  # type: ignore[misc]


def test_an_error_names_the_flag_when_the_flag_is_wrong_and_the_key_when_the_file_is(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, trials=0)
    with pytest.raises(UsageError, match=r"study.yaml: trials must be .* 1, but got 0"):
        load_config(path, {})
    with pytest.raises(UsageError, match=r"^--trials must be .* 1, but got '-1'"):
        load_config(path, {"trials": "-1"})
