"""What all tests share: one cache of compiled programs, and one calibrated study to copy.

Compiling takes seconds and calibrating takes four children, so both happen once.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tuner.studies import SMALL, SPACE, WORKLOAD, Ended, Studies


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of compiled programs, for `--cache-dir`."""
    return tmp_path_factory.mktemp("xla")


@dataclass(frozen=True)
class Calibrated:
    """The study `small`, started with `--trials 1`: its baseline is measured and nothing else."""

    studies: Studies
    ended: Ended


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Calibrated:
    """A study to read; tests that go on with it take `small`."""
    studies = Studies(tmp_path_factory.mktemp("calibrated"), cache_dir)
    return Calibrated(studies, studies.start("small", *SMALL, "--trials", "1"))


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
def finished(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Finished:
    """A study to read; who changes it copies it first."""
    studies = Studies(tmp_path_factory.mktemp("finished"), cache_dir)
    baseline = ("--baseline", "32,16,2,2")
    ended = studies.start("done", *SPACE, *WORKLOAD, *baseline, "--trials", "5", "--probe", "true")
    assert ended.code == 0, ended.err
    return Finished(studies, ended)
