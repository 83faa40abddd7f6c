"""`tuner.tune` from a script, a thread, and again."""

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import tuner
from tests.tuner.studies import PATIENCE_S, Studies
from tuner.errors import Refused, UsageError
from tuner.tuning import Study

DONE = {
    "num_envs": (8, 16),
    "num_steps": (16, 32),
    "num_minibatches": 2,
    "num_epochs": 2,
    "env_steps": 16384,
    "network": 16,
    "env_params": {"obs_dim": 8},
    "trials": 5,
}


@pytest.mark.timeout(600)
def test_a_study_that_has_ended_is_returned_as_it_is_from_any_thread(
    copied: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_dir = copied.folder / "runs"
    found: list[Study] = []
    said: list[str] = []

    def tune() -> None:
        found.append(tuner.tune("done", runs_dir=runs_dir, say=said.append, **DONE))

    thread = threading.Thread(target=tune)
    thread.start()
    thread.join()
    (study,) = found
    assert set(study.profiles) == {"balanced", "max_gpu", "max_quality"}
    assert study.ending.exit_code == 0
    records = copied.records("done")
    assert list(study.records["trial"]) == [record.trial for record in records]
    assert study.best is not None
    assert study.best.final_score in [record.final_score for record in records] or records
    assert "balanced: num_envs=" in study.report()
    assert said == []
    again = tuner.tune("done", runs_dir=runs_dir, budget="1h", say=said.append, **DONE)
    assert (again.ending.reason, said) == (study.ending.reason, [])
    # The device's lock lies in the temporary folder: not to wait for others' studies.
    (copied.folder / "tmp").mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(copied.folder / "tmp"))
    more = {**DONE, "trials": 9}
    longer = tuner.tune("done", runs_dir=runs_dir, say=said.append, **more)
    assert longer.ending.reason.startswith("every config of the space has been tried")
    assert said
    said.clear()
    tuner.tune("done", runs_dir=runs_dir, say=said.append, **more)
    assert said == []
    with pytest.raises(Refused, match="--num-envs must stay"):
        tuner.tune("done", runs_dir=runs_dir, **{**DONE, "num_envs": (4,)})


def test_a_wrong_setting_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--budget must be a number with a unit"):
        tuner.tune("new", runs_dir=tmp_path, budget="soon")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_script_needs_no_guard_and_runs_twice(tmp_path: Path, cache_dir: Path) -> None:
    settings = {**DONE, "trials": 2, "cache_dir": str(cache_dir), "probe": False}
    script = tmp_path / "script.py"
    script.write_text(
        "import tuner\n"
        f"study = tuner.tune('mine', baseline='32,16,2,2', min_feasible=1, **{settings!r})\n"
        "print(study.profiles['balanced'].num_envs, len(study.records))\n"
    )
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, str(script)], cwd=tmp_path, env=environ, check=True,
            capture_output=True, text=True, timeout=2 * PATIENCE_S,
        )
        for _ in range(2)
    )  # fmt: skip
    assert first.stdout == second.stdout
    assert "calibrating" in first.stderr
    assert second.stderr == ""
