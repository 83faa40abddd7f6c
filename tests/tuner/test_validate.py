"""A profile measured again: a real validation of a tiny workload, and what is refused."""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from storage.profile import Profile
from storage.profile_files import load_profile, write
from tests.conftest import Finished
from tests.tuner.studies import TUNER, Ended
from tuner import validate as module
from tuner.devices.detect import open_device
from tuner.errors import Refused, UsageError
from tuner.hardware import hardware_facts, open_bench, probe_device
from tuner.interrupts import Interrupts
from tuner.probe import sps_per_reach
from tuner.quality import QualityReferences
from tuner.settings import load_config
from tuner.validate import Validation, validate
from tuner.workload import workload_facts, workload_hash

BUDGET = 262_144
"""Two seconds or more: utilisation must rest on several samples."""

FRESH_PROCESSES = 4
"""Three degrees of freedom: two processes that differ by a fifth could be anything."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of its own, and the device's lock in it: the tests wait for nobody's study."""
    folder = tmp_path_factory.mktemp("validate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(scope="module")
def profile(folder: Path) -> Profile:
    """A profile of this machine that promises very little."""
    config = load_config({"env_params": {"obs_dim": 8}, "network": [16]}, {}).resolved("cpu")
    with (
        Interrupts() as interrupts,
        open_bench(config, folder / "logs", interrupts, lambda line: None) as bench,
    ):
        probed = probe_device(bench)
        hardware = hardware_facts(bench, probed)
    return Profile(
        profile="balanced",
        num_envs=16,
        num_steps=32,
        num_minibatches=2,
        num_epochs=2,
        device=hardware["kind"],
        expected_sps=100.0,
        expected_sps_ci95=(99.0, 101.0),
        expected_memory_gb=0.5,
        expected_device_util=1.0,
        util_source=open_device().util_source,
        quality_score=0.1,
        learning_rate=config.learning_rate,
        hardware=hardware,
        versions=probed["versions"],
        workload=workload_facts(config, {"obs_shape": [8], "num_actions": 3}, {}),
        measured={
            "env_steps": BUDGET,
            "quality_references": asdict(
                QualityReferences(0.0, 0.001, best_return=0.44, num_evaluations=4)
            ),
        },
    )


@pytest.fixture(scope="module")
def validated(folder: Path, profile: Profile) -> Validation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SOAK_S", 1.0)
        patch.setattr(module, "FRESH_PROCESSES", FRESH_PROCESSES)
        path = write(folder / "profiles", profile)
        return validate(
            path, {"runs_dir": str(folder / "runs")}, tolerance=0.1, say=lambda line: None
        )


def test_a_promise_that_is_kept_holds(validated: Validation) -> None:
    assert validated.exit_code == 0, validated.reason
    assert [check.what for check in validated.checks] == [
        "throughput",
        "memory",
        "utilisation",
        "quality",
        "memory over the soak",
        "threads over the soak",
    ]
    assert {c.verdict for c in validated.checks} == {"holds"}


def test_the_soak_is_longer_than_the_rest_and_probed_like_it(validated: Validation) -> None:
    *fresh, soak = validated.records
    assert [record.env_steps for record in fresh] == [BUDGET] * FRESH_PROCESSES
    # 150 updates of 512 env-steps at least, up to an update's end.
    assert soak.env_steps is not None
    assert soak.env_steps >= 150 * 512
    for record in validated.records:
        assert set(record.probe or {}) == {"matmul_flops_per_s", "copy_bytes_per_s"}


def test_the_document_is_plain_json(validated: Validation) -> None:
    document = json.loads(json.dumps(validated.as_dict()))
    assert document["exit_code"] == validated.exit_code
    assert len(document["checks"]) == 6
    assert len(document["records"]) == FRESH_PROCESSES + 1


def probe_of_all(validated: Validation) -> dict[str, Any]:
    """What an export would have said of these measurements, beside a promise of 100 steps/s."""
    per_reach = sps_per_reach(validated.records)
    probe = validated.records[0].probe or {}
    return {**probe, "sps_per_reach": statistics.median(per_reach), "sps": 100.0}


def test_a_promise_that_no_machine_keeps_has_drifted(validated: Validation) -> None:
    # The same measurements against another promise: judged, not measured, again.
    rates = [record.sps for record in validated.records if record.sps is not None]
    boasting = replace(
        validated.profile,
        expected_sps=1e9,
        expected_sps_ci95=(0.9e9, 1.1e9),
        measured={**validated.profile.measured, "probe": probe_of_all(validated)},
    )
    check = module.check_throughput(boasting, validated.records, 0.1)
    assert check.verdict == "drifted"
    assert check.measured == pytest.approx(sum(rates) / len(rates))
    whole = Validation(profile=boasting, checks=(check,), records=validated.records)
    assert whole.exit_code == 6
    assert whole.reason.startswith("throughput: 0% (")


def test_an_exported_profile_says_what_validate_needs(finished: Finished) -> None:
    path = finished.studies.folder / "runs" / "done" / "profiles" / "balanced.yaml"
    profile = load_profile(path)
    module._require_measured(profile, path)
    probe = profile.measured["probe"]
    assert set(probe) == {"matmul_flops_per_s", "copy_bytes_per_s", "sps_per_reach", "sps"}
    assert probe["sps"] == profile.expected_sps
    assert "random_return" in profile.measured["quality_references"]


def command(path: Path, folder: Path, *flags: str) -> Ended:
    done = subprocess.run(
        [TUNER, "validate", str(path), *flags],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def refusal(profile: Profile, folder: Path, **changes: Any) -> Ended:
    path = write(folder / "refused", replace(profile, **changes))
    return command(path, folder)


def test_another_gpu_is_refused(profile: Profile, folder: Path) -> None:
    hardware = {**profile.hardware, "kind": "gpu", "platform": "gpu", "name": "NVIDIA A100"}
    ended = refusal(profile, folder, device="gpu", hardware=hardware)
    assert (ended.code, ended.out) == (4, "")
    assert "a profile must stay on its hardware, whose kind is 'gpu', but got 'cpu'" in ended.err
    assert "tuner transfer" in ended.err
    assert ended.err.count("\n") == 1


def test_a_profile_that_names_no_hardware_is_refused(profile: Profile, folder: Path) -> None:
    assert refusal(profile, folder, hardware={}).code == 4


def test_a_changed_workload_is_refused(profile: Profile, folder: Path) -> None:
    ended = refusal(profile, folder, workload={**profile.workload, "network": [256, 256]})
    assert ended.code == 4
    assert "the workload must be the one that was measured" in ended.err


def test_an_environment_whose_shapes_changed_is_refused(profile: Profile, folder: Path) -> None:
    facts = {**profile.workload, "obs_shape": [9]}
    path = write(
        folder / "shapes", replace(profile, workload=facts | {"hash": workload_hash(facts)})
    )
    with pytest.raises(Refused, match=r"must have the obs_shape that was measured, \[9\]"):
        validate(path, {"runs_dir": str(folder / "runs")}, tolerance=0.1, say=lambda line: None)


@pytest.mark.parametrize("missing", ["expected_sps", "measured"])
def test_a_profile_that_promises_nothing_cannot_be_validated(
    profile: Profile, folder: Path, missing: str
) -> None:
    ended = refusal(profile, folder, **{missing: None if missing == "expected_sps" else {}})
    assert ended.code == 2
    assert "must hold expected_sps, measured.env_steps and what it was judged by" in ended.err


@pytest.mark.parametrize(
    "broken",
    [
        {"quality_references": {"foo": 1}},
        {"quality_references": "high"},
        {"probe": {"matmul_flops_per_s": "fast"}},
        {"probe": 7},
        {"quality_sd": "small"},
        {"replicates": 0},
        {"env_steps": True},
    ],
    ids=str,
)
def test_a_profile_that_was_spoiled_is_refused_before_anything_is_measured(
    profile: Profile, folder: Path, broken: dict[str, Any]
) -> None:
    path = write(folder / "spoiled", replace(profile, measured={**profile.measured, **broken}))
    with pytest.raises(UsageError, match="must hold expected_sps"):
        validate(path, {}, tolerance=0.1, say=lambda line: None)


@pytest.mark.parametrize("tolerance", ["0", "100%", "-5%", "ten", "1.5", "nan"])
def test_a_wrong_tolerance_is_refused(folder: Path, tolerance: str) -> None:
    ended = command(folder / "none.yaml", folder, f"--tolerance={tolerance}")
    assert ended.code == 2
    assert "must be a share between 0 and 1, such as 10% or 0.1" in ended.err
    assert repr(tolerance) in ended.err


def test_a_missing_file_is_refused(folder: Path) -> None:
    ended = command(folder / "none.yaml", folder)
    assert ended.code == 2
    assert "none.yaml must be a profile file, but got: No such file" in ended.err
