"""`tuner plan` and `tuner targets` as a user runs them, on this machine and without a compiler."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.studies import BASELINE, PATIENCE_S, WORKLOAD, Ended, Studies
from tuner.targets.table import known

pytestmark = pytest.mark.timeout(PATIENCE_S * 2)

TWO = ("--num-envs", "8", "--num-steps", "16,32", "--num-minibatches", "2", "--num-epochs", "2")
NO_TOOLCHAIN = "TUNER_TARGETS_PYTHON"


def document(ended: Ended) -> dict[str, Any]:
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def one_line(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended.err
    assert ended.out == ""
    lines = [line for line in ended.err.splitlines() if line.startswith("tuner: ")]
    assert len(lines) == 1
    assert "Traceback" not in ended.err
    for word in words:
        assert word in lines[0]


def test_a_plan_of_this_machine_and_the_same_from_the_cache(small: Studies) -> None:
    asked = ("plan", *TWO, *WORKLOAD, *BASELINE, "--budget", "10m", "--json")
    first = document(small.run(*asked, "--cache-dir", "cache/xla"))
    (plan,) = first["plans"]
    assert first["num_configs"] == len(plan["configs"]) == 2
    assert plan["device"]["kind"] == "cpu"
    assert plan["method"] == "device"
    assert plan["programs"]["compiled_now"] == 2
    sizes = [config["predicted_memory_gb"] for config in plan["configs"]]
    assert 0 < sizes[0] < sizes[1] < 0.01
    assert [config["fits"] for config in plan["configs"]] == [True, True]
    assert plan["largest_fitting"]["num_steps"] == 32
    assert plan["head_room_gb"] == pytest.approx(plan["memory_limit_gb"] - sizes[1])
    # The study `small` beside it has measured this workload here: 3 times its baseline.
    told = plan["forecast"]
    assert "3 trials of the study small" in told["source"]
    assert told["trial_s"] > 0
    assert told["space_minutes"] == pytest.approx((2 + 3 + 3) * told["trial_s"] / 60)
    assert told["budget_trials"] == int(600 / told["trial_s"]) - 3 - 3

    limit = f"{sizes[0] * 1.001:.9f}GB"
    again = small.run(*asked[:-1], "--cache-dir", "cache/xla", "--memory-limit", limit)
    assert again.code == 0, again.err
    assert "compiling" not in again.err
    assert "fit        1 of 2 configs" in again.out
    assert "do not fit 1, marked !" in again.out
    assert "0 compiled now, 2 known before" in again.out
    assert "!0.0" in again.out


@pytest.mark.long
def test_a_target_without_the_compiler_is_an_estimate_and_says_so(
    studies: Studies, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    from tuner.plan import plan
    from tuner.report.plan import plan_document
    from tuner.settings import load_config
    from tuner.targets.table import find

    monkeypatch.setattr("tuner.plan.find_toolchain", lambda: None)
    monkeypatch.chdir(studies.folder)
    settings = {"num_envs": "16", "num_steps": "16", "num_minibatches": "2", "num_epochs": "2",
                "network": "16", "env_params": ["obs_dim=8"], "cache_dir": str(cache_dir),
                "memory_limit": "1KB"}  # fmt: skip
    said: list[str] = []
    plans = plan(load_config(None, settings), [find("T4").target()], say=said.append)
    (entry,) = plan_document(plans)["plans"]
    assert entry["method"] == "cpu estimate"
    (config,) = entry["configs"]
    assert config["memory_source"] == "cpu estimate"
    assert config["fits"] is False
    assert entry["largest_fitting"] is None
    assert entry["memory_limit_gb"] == 1e-6
    assert entry["forecast"]["trial_s"] is None
    assert "no study of this workload on Tesla T4" in entry["forecast"]["source"]


def test_an_unknown_target_is_refused_with_the_nearest(studies: Studies) -> None:
    one_line(
        studies.run("plan", "--target", "RTX 4091"),
        "--target must be a GPU that `tuner targets` lists, but got 'RTX 4091'",
        "did you mean NVIDIA GeForce RTX 4090",
    )


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("plan", "--target-file", "nowhere.txtpb"), "--target-file must be a text file"),
        (("plan", "--num-envs", "x"), "such as 512,1024"),
        (("plan", "--env", "nothing"), "--env"),
        (("targets", "--export"), "--export must run where there is a GPU"),
    ],
)
def test_bad_input_is_one_line(studies: Studies, arguments: tuple[str, ...], word: str) -> None:
    one_line(studies.run(*arguments), word)


def test_the_targets_are_listed_with_their_sources(studies: Studies) -> None:
    listed = json.loads(studies.run("targets", "--json").out)
    assert [entry["name"] for entry in listed] == [gpu.name for gpu in known()]
    assert all(entry["source"] and "gpu_device_info" in entry["description"] for entry in listed)
    table = studies.run("targets")
    assert table.code == 0
    assert "NVIDIA H100 80GB HBM3" in table.out
    assert "h100_sxm.txtpb" in table.out


def test_names_to_type_are_whole_on_a_narrow_terminal(
    studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert "…" not in studies.run("targets").out
