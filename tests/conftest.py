"""What all tests share: one cache of compiled programs, and one calibrated study to copy.

Compiling takes seconds and calibrating takes four children, so both happen once.
"""

import json
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from tests.tuner.studies import SMALL, SPACE, WORKLOAD, Ended, Studies


def pytest_configure() -> None:
    # How long an example takes is the machine's affair.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    # Workers of pytest-xdist ignore Ctrl-C, and what they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that the workers of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def cache_dir(shared: Path) -> Path:
    """The folder of compiled programs, for `--cache-dir`."""
    folder = shared / "xla"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(folder: Path, start: Callable[[], Ended]) -> Ended:
    """Return what a command left in `folder`; the first worker that asks runs it."""
    note = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not note.exists():
            note.write_text(json.dumps(asdict(start())))
        return Ended(**json.loads(note.read_text()))


@dataclass(frozen=True)
class Calibrated:
    """The study `small`, started with `--trials 1`: its baseline is measured and nothing else."""

    studies: Studies
    ended: Ended


@pytest.fixture(scope="session")
def calibrated(shared: Path, cache_dir: Path) -> Calibrated:
    """A study to read; tests that go on with it take `small`."""
    studies = Studies(shared / "calibrated", cache_dir)
    ended = made_once(studies.folder, lambda: studies.start("small", *SMALL, "--trials", "1"))
    return Calibrated(studies, ended)


@pytest.fixture
def studies(tmp_path: Path, cache_dir: Path) -> Studies:
    """An empty runs folder."""
    return Studies(tmp_path, cache_dir)


@pytest.fixture
def small(tmp_path: Path, calibrated: Calibrated) -> Studies:
    """A copy of the calibrated study, to go on with: `resume small`."""
    return calibrated.studies.copy_to(tmp_path)


@dataclass(frozen=True)
class Finished:
    """The study `done`, run to its end: a baseline outside the space of four configs, and these."""

    studies: Studies
    ended: Ended


@pytest.fixture(scope="session")
def finished(shared: Path, cache_dir: Path) -> Finished:
    """A study to read; who changes it copies it first."""
    studies = Studies(shared / "finished", cache_dir)
    chosen = (*SPACE, *WORKLOAD, "--baseline", "32,16,2,2", "--trials", "5", "--probe", "true")
    ended = made_once(studies.folder, lambda: studies.start("done", *chosen))
    assert ended.code == 0, ended.err
    return Finished(studies, ended)


@pytest.fixture(scope="session", autouse=True)
def one_study_each(request: pytest.FixtureRequest, worker_id: str) -> None:
    """Two workers make one of the two shared studies each; neither waits for the other's."""
    study = {"gw0": "calibrated", "gw1": "finished"}.get(worker_id)
    if any(study in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue(str(study))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Studies:
    """A copy of the finished study, to go on with or to spoil."""
    return finished.studies.copy_to(tmp_path)
