"""The settings file of `tuner init`: read back as the command line reads it."""

import re
from pathlib import Path
from typing import Literal

import pytest
import yaml

from tuner import cli
from tuner.config import StudyConfig
from tuner.devices.base import DeviceInfo
from tuner.settings import load_config, read_settings
from tuner.settings_file import WIDTH, settings_file

ENVS = ("stress", "trading-phase2", "gymnax:CartPole-v1", "gymnax:Pendulum-v1", "brax:ant",
        "my_pkg.my_env:make_env")  # fmt: skip


def device(kind: Literal["cpu", "gpu"]) -> DeviceInfo:
    return DeviceInfo(
        kind=kind, name="A device with a long name " * 5, memory_bytes=None, uuid=None,
        driver=None, platform=kind, cpu="a CPU", cores=2,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
@pytest.mark.parametrize("env", ENVS)
def test_what_is_written_equals_the_defaults(
    env: str, kind: Literal["cpu", "gpu"], tmp_path: Path
) -> None:
    text = settings_file(env, device(kind), Path("study.yaml"))
    defaults = load_config(None, {"env": env}).resolved(kind)
    as_written, all_taken = tmp_path / "study.yaml", tmp_path / "all.yaml"
    as_written.write_text(text)
    assert load_config(as_written, {}).resolved(kind) == defaults
    all_taken.write_text(re.sub(r"^#(?=\w+:)", "", text, flags=re.MULTILINE))
    assert load_config(all_taken, {}) == defaults  # nothing is left to the device
    keys = [*re.findall(r"^#?(\w+):", text, re.MULTILINE)]
    assert sorted(keys) == sorted(StudyConfig.model_fields)
    assert {"env", "num_envs", "baseline", "budget"} <= set(yaml.safe_load(text))
    assert max(len(line) for line in text.splitlines() if line.startswith("# ")) <= WIDTH


def test_the_space_is_that_of_the_device(tmp_path: Path) -> None:
    written = [yaml.safe_load(settings_file("stress", device(kind), tmp_path))["num_envs"][-1]
               for kind in ("cpu", "gpu")]  # fmt: skip
    assert written == [512, 16384]


def test_init_writes_once_and_names_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._run(["init", "--env", "my_env:make_env"]) == 0
    told = capsys.readouterr()
    assert told.out == "study.yaml\n"
    # A file alone may not run code, so the command names it.
    assert "tuner start my_env -c study.yaml --env my_env:make_env" in told.err
    Path("study.yaml").write_text("seed: 7\n")
    assert cli._run(["init"]) == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert read_settings(Path("study.yaml")) == {"seed": 7}
    assert cli._run(["init", "--force"]) == 0
    assert read_settings(Path("study.yaml"))["env"] == "stress"
    Path("folder").mkdir()
    assert cli._run(["init", "-o", "folder", "--force"]) == 2
