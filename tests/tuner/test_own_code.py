"""An environment and a trainer of the user's, from a folder outside the repository."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tuner.studies import SPACE, Ended, Studies

pytestmark = pytest.mark.timeout(600)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QUICK = (*SPACE, "--baseline", "16,16,2,2", "--env-steps", "16384", "--trials", "1",
         "--min-feasible", "1", "--repeat-disturbed", "false", "--probe", "false")  # fmt: skip
ENV, TRAINER = "my_env:make_env", "my_trainer:make_trainer"


@pytest.fixture
def outside(tmp_path: Path, cache_dir: Path) -> Studies:
    """A folder of the user's with both examples in it."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    return Studies(tmp_path, cache_dir)


def profile_of(studies: Studies, name: str) -> dict[str, Any]:
    path = studies.folder / "runs" / name / "profiles" / "balanced.yaml"
    profile: dict[str, Any] = yaml.safe_load(path.read_text())
    return profile


def refused(ended: Ended, *words: str) -> str:
    """Check that the command ended before any trial, with one line for the user."""
    assert ended.code == 2, ended.err
    lines = [line for line in ended.err.splitlines() if line.startswith("tuner: ")]
    assert len(lines) == 1
    assert "Traceback" not in ended.err
    assert "baseline" not in ended.err
    for word in words:
        assert word in lines[0]
    return lines[0]


def test_an_environment_of_the_users_is_tuned_where_folders_have_our_names(
    outside: Studies,
) -> None:
    for name in ("envs", "tuner", "storage"):
        (outside.folder / name).mkdir()
        (outside.folder / name / "__init__.py").write_text("raise RuntimeError('wrong one')\n")
    ended = outside.start("mine", "--env", ENV, "--env-param", "width=0.5",
                          "--env-param", "step_cost=0.02", *QUICK)  # fmt: skip
    assert ended.code == 0, ended.err
    assert "preflight: environment and 2 updates traced for 4 configs" in ended.err
    profile = profile_of(outside, "mine")
    assert profile["workload"]["env"] == ENV
    assert profile["workload"]["env_params"] == {"width": 0.5, "step_cost": 0.02}
    assert profile["workload"]["obs_shape"] == [2]
    assert profile["quality_score"] > 0.5
    path = "runs/mine/profiles/balanced.yaml"
    refused(outside.run("validate", path), f"--env must be {ENV}", "name it yourself")


@pytest.mark.long
def test_the_profile_of_a_users_environment_is_validated_if_they_name_it(outside: Studies) -> None:
    assert outside.start("mine", "--env", ENV, *QUICK).code == 0
    again = outside.run("validate", "runs/mine/profiles/balanced.yaml", "--env", ENV)
    assert again.code in (0, 6, 9), again.err  # the machine may be busy, but it was measured
    assert "soak of" in again.err


@pytest.mark.long
def test_a_trainer_of_the_users_is_tuned_on_any_environment(outside: Studies) -> None:
    ended = outside.start("theirs", "--trainer", TRAINER, "--env-param", "obs_dim=8", *QUICK)
    assert ended.code == 0, ended.err
    assert "quality rests on training returns" in ended.err
    profile = profile_of(outside, "theirs")
    assert profile["workload"]["trainer"] == TRAINER
    assert profile["workload"]["ppo"] is profile["learning_rate"] is None
    assert profile["quality_score"] > 0.2
    assert "quality rests on training returns" in profile["notes"]
    record = outside.record("theirs", 0)
    assert record.entropy is not None
    assert record.learning_return == record.mean_return is not None
    assert record.predicted_memory_gb is not None
    refused(outside.run("validate", "runs/theirs/profiles/balanced.yaml"), f"must be {TRAINER}")


def test_a_python_if_stops_the_study_with_file_line_and_cure(outside: Studies) -> None:
    path = outside.folder / "my_env.py"
    line = "        truncated = state.time >= params.max_steps_in_episode\n"
    code = path.read_text()
    assert line in code
    number = code[: code.index(line)].count("\n") + 1
    path.write_text(code.replace(line, "        truncated = bool(state.time >= 50)\n"))
    ended = outside.start("broken", "--env", ENV, *QUICK)
    refused(ended, f"my_env.py:{number}: ", "jnp.")
    assert not (outside.folder / "runs" / "broken" / "config.yaml").exists()  # the name is free


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--env", "nowhere:make"), ("no module 'nowhere'", "run tuner in the folder")),
        (("--env", "my_env:mak_env"), ("must name something in", "did you mean make_env?")),
        (("--env", "my_env:jax"), ("must be a function or a class",)),
        (("--env", "raises:make"), ("RuntimeError: no license", "raises.py, line 2")),
        (("--env", "fails:make"), ("ValueError: not today", "fails.py, line 2")),
        (("--env", "fails:nothing"), ("NoneType", "default_params")),
        (("--trainer", "fails:nothing"), ("fails:nothing", "but got TypeError")),
        (("--env", ENV, "--env-param", "widht=2"), ("did you mean width?",)),
    ],
)
def test_a_factory_at_fault_is_told_by_its_own_line(
    outside: Studies, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (outside.folder / "raises.py").write_text("\nraise RuntimeError('no license')\n")
    (outside.folder / "fails.py").write_text(
        "def make():\n    raise ValueError('not today')\n\ndef nothing():\n    return None\n"
    )
    refused(outside.start("bad", *flags, *QUICK), *words)
