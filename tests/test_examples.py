"""The examples that train with a profile, run as they stand.

Each takes longer than `make test` has; what they import is in the extras `bench` and `brax`.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from storage.profile import Profile
from storage.profile_files import write
from tests.tuner.studies import PATIENCE_S

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROFILE = Profile(
    profile="balanced",
    num_envs=32,
    num_steps=32,
    num_minibatches=4,
    num_epochs=4,
    learning_rate=1e-3,
)


def run(folder: Path, *arguments: str) -> str:
    path = write(folder, PROFILE)
    script, *rest = arguments
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), str(path), *rest],
        cwd=folder, capture_output=True, text=True, timeout=2 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed"
    )


@pytest.mark.parametrize(
    "script", [pytest.param("train_rejax.py", marks=needs("rejax")), "train_purejaxrl.py"]
)
def test_a_profile_trains_with_another_ppo(tmp_path: Path, script: str) -> None:
    found = re.fullmatch(r"mean return (\d+\.\d)\n", run(tmp_path, script, "200000"))
    assert found is not None
    assert float(found[1]) > 60  # the random policy's is 22


@needs("brax")
def test_a_profile_trains_with_brax(tmp_path: Path) -> None:
    told = run(tmp_path, "train_brax.py", "4096", "fast")
    assert len(re.findall(r"^[\d,]+ env-steps: return -?[\d.]+$", told, re.MULTILINE)) == 3


@needs("nbclient")
@needs("ipykernel")
def test_the_notebook_runs_from_top_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the lock of the device is
    notebook = nbformat.read(EXAMPLES / "tune_and_train.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=2 * PATIENCE_S, resources={"metadata": {"path": str(tmp_path)}}
    )
    done = client.execute()
    text = str([cell.get("outputs") for cell in done.cells])
    assert "balanced: num_envs=" in text
    assert "final_score" in text
