"""What a profile and the flags on top of it ask for, and what a folder allows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.errors import InvalidProfile
from storage.profile import Profile
from storage.profile_files import write
from tuner.errors import Refused, UsageError
from tuner.training_plan import (
    TrainingPlan,
    differences_of_shapes,
    make_plan,
    refuse_other_training,
    stored_training,
)

PROFILE = Profile(
    profile="balanced",
    num_envs=16,
    num_steps=16,
    num_minibatches=2,
    num_epochs=2,
    learning_rate=1e-3,
    workload={
        "env": "stress",
        "env_params": {"obs_dim": 8},
        "network": [16],
        "obs_shape": [8],
        "lr_anneal_env_steps": 77,
        "ppo": {"gamma": 0.9, "learning_rate": 1e-3},
    },
)


def plan(folder: Path, profile: Profile = PROFILE, **flags: object) -> TrainingPlan:
    asked: Mapping[str, object] = {"total_steps": "1e4", **flags}
    return make_plan(write(folder, profile), asked, device_kind="cpu")


def test_the_profile_brings_numbers_environment_and_scalars(tmp_path: Path) -> None:
    made = plan(tmp_path)
    workload = made.config.workload()
    assert made.hardware.as_dict() == {
        "num_envs": 16, "num_steps": 16, "num_minibatches": 2, "num_epochs": 2,
    }  # fmt: skip
    assert (workload.env, workload.env_params, workload.network) == (
        "stress",
        {"obs_dim": 8},
        (16,),
    )
    assert workload.hyperparams["gamma"] == 0.9
    assert workload.hyperparams["learning_rate"] == 1e-3
    assert workload.lr_anneal_env_steps is None  # a profile holds no budget
    assert (made.announcements, made.differences) == ((), ())


def test_flags_win_and_are_announced(tmp_path: Path) -> None:
    made = plan(tmp_path, num_envs="64", gamma="0.5", learning_rate="0.001")
    assert made.hardware.num_envs == 64
    assert made.announcements == (
        "--num-envs 64 wins over the profile's 16",
        "--gamma 0.5 wins over the profile's 0.9",
    )
    assert made.differences == ()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"env": "gymnax:CartPole-v1"}, "env was 'stress'"),
        ({"env_params": ["obs_dim=4"]}, "env_params.obs_dim was 8"),
        ({"network": "32"}, "network was [16]"),
    ],
)
def test_another_workload_is_told(tmp_path: Path, flags: dict[str, Any], named: str) -> None:
    assert any(d.startswith(named) for d in plan(tmp_path, **flags).differences)


def test_another_environment_leaves_the_parameters_of_the_old_one(tmp_path: Path) -> None:
    assert plan(tmp_path, env="gymnax:CartPole-v1").config.env_params == {}


def test_an_edited_learning_rate_is_applied_and_told(tmp_path: Path) -> None:
    made = plan(tmp_path, replace(PROFILE, learning_rate=5e-4))
    assert made.config.learning_rate == 5e-4
    assert "learning_rate was edited" in made.differences[0]


def test_shapes_that_changed_are_told() -> None:
    assert differences_of_shapes(PROFILE, {"obs_shape": [9], "num_actions": 2}) == [
        "obs_shape was [8] when it was measured, and is [9] here"
    ]


@pytest.mark.parametrize("name", ["env", "trainer"])
def test_code_of_the_users_runs_only_if_a_flag_names_it(tmp_path: Path, name: str) -> None:
    theirs = replace(PROFILE, workload={**PROFILE.workload, name: "evil:make"})
    with pytest.raises(UsageError, match=f"--{name} must be named"):
        plan(tmp_path, theirs)


def test_code_that_a_flag_names_is_trained_with(tmp_path: Path) -> None:
    theirs = replace(PROFILE, workload={**PROFILE.workload, "env": "mine:make"})
    assert plan(tmp_path, theirs, env="mine:make").config.env == "mine:make"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"total_steps": None}, "--total-steps must be given"),
        ({"total_steps": "many"}, "--total-steps must be an integer"),
        ({"num_envs": "0"}, "--num-envs"),
        ({"num_envs": "3", "num_steps": "3"}, "must be a multiple of num_minibatches"),
        ({"env": "nowhere"}, "--env"),
        ({"lr_schedule": "linear", "total_steps": "5e9"}, "must end within 4,294,967,295"),
        ({"checkpoint_every": "soon"}, "--checkpoint-every"),
    ],
)
def test_a_wrong_flag_is_refused(tmp_path: Path, flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        plan(tmp_path, **flags)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "line", ["num_envs: null", "schema_version: 2", "total_steps: 100", "num_epochs: [1]"]
)
def test_a_profile_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, PROFILE)
    key = line.partition(":")[0]
    kept = [text for text in path.read_text().splitlines() if not text.startswith(f"{key}:")]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(InvalidProfile):
        make_plan(path, {"total_steps": "100"}, device_kind="cpu")


def test_a_training_is_known_again_by_what_it_trains(tmp_path: Path) -> None:
    identity = plan(tmp_path).identity()
    refuse_other_training({"identity": identity}, plan(tmp_path, total_steps="9e9").identity())
    for flags, named in (
        ({"seed": "1"}, "with seed 0, but got 1"),
        ({"num_envs": "32"}, "with num_envs 16, but got 32"),
        ({"gamma": "0.5"}, "with ppo.gamma 0.9, but got 0.5"),
        ({"env_params": ["obs_dim=4"]}, "with env_params.obs_dim 8, but got 4"),
    ):
        with pytest.raises(Refused, match=named):
            refuse_other_training({"identity": identity}, plan(tmp_path, **flags).identity())


def test_a_linear_schedule_fixes_the_total(tmp_path: Path) -> None:
    begun = plan(tmp_path, lr_schedule="linear").identity()
    longer = plan(tmp_path, lr_schedule="linear", total_steps="2e4").identity()
    with pytest.raises(Refused, match="lr_anneal_env_steps 10000, but got 20000"):
        refuse_other_training({"identity": begun}, longer)


def test_a_folder_is_new_or_of_this_training(tmp_path: Path) -> None:
    folder = tmp_path / "trained"
    assert stored_training(folder, resume=False) is None
    with pytest.raises(UsageError, match="--resume must find a training"):
        stored_training(folder, resume=True)
    folder.mkdir()
    (folder / ".lock").touch()
    assert stored_training(folder, resume=False) is None
    (folder / "notes.txt").touch()
    with pytest.raises(Refused, match="must be new or empty"):
        stored_training(folder, resume=False)
    (folder / "training.json").write_text('{"identity": {"seed": 0}}')
    with pytest.raises(Refused, match="add --resume to go on"):
        stored_training(folder, resume=False)
    assert stored_training(folder, resume=True) == {"identity": {"seed": 0}}
    (folder / "training.json").write_text("[")
    with pytest.raises(UsageError, match="must hold the facts of a training"):
        stored_training(folder, resume=True)
