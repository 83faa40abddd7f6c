"""Children that compile: what their answers are kept under, and what becomes of a fault."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.trials import TINY, workload
from tuner.compiling import (
    PACKAGES,
    Compiler,
    Compilers,
    Job,
    ProgramCache,
    package_versions,
)
from tuner.errors import UsageError
from tuner.footprint import Program
from tuner.interrupts import Interrupts
from tuner.space import HardwareConfig

HERE = Compiler(python=sys.executable, variables={"JAX_PLATFORMS": "cpu"}, identity=("cpu", "1"))
CONFIG = HardwareConfig(**TINY)
JOB = Job(HERE, CONFIG)
KNOWN = Program(1000, 100)


@pytest.fixture
def cache(tmp_path: Path) -> ProgramCache:
    return ProgramCache(tmp_path / "programs", workload(), {})


def test_an_answer_is_kept_for_the_same_program_alone(cache: ProgramCache) -> None:
    assert cache.get(JOB) is None
    cache.put(JOB, KNOWN)
    assert cache.get(JOB) == KNOWN
    others = (
        Job(HERE, replace(CONFIG, num_epochs=4)),
        Job(replace(HERE, identity=("cpu", "2")), CONFIG),
        Job(replace(HERE, target="gpu_device_info {}"), CONFIG),
        Job(replace(HERE, written_for="cuda"), CONFIG),
    )
    assert [job for job in others if cache.get(job) is not None] == []


def test_another_workload_or_other_data_is_another_program(cache: ProgramCache) -> None:
    cache.put(JOB, KNOWN)
    assert ProgramCache(cache.folder, workload(2e-3), {}).get(JOB) is None
    assert ProgramCache(cache.folder, workload(), {"data": {"sha256": "a"}}).get(JOB) is None
    assert ProgramCache(cache.folder, workload(), {}).get(JOB) == KNOWN


def test_flags_of_xla_and_jax_make_another_program(
    cache: ProgramCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(JOB, KNOWN)
    for name in ("XLA_FLAGS", "JAX_ENABLE_X64"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert cache.get(JOB) is None
    assert cache.get(JOB) == KNOWN


def test_an_identity_names_what_the_program_is_made_with() -> None:
    names = [named.split()[0] for named in package_versions((*PACKAGES, "not-installed"))]
    assert {"jax", "jaxlib", "optax", "gymnax"} <= set(names)
    assert "not-installed" not in names


def test_what_failed_is_tried_again(cache: ProgramCache) -> None:
    cache.put(JOB, Program(failed="no"))
    assert cache.get(JOB) is None


def test_code_of_the_user_s_is_known_by_the_text_of_its_program_alone(tmp_path: Path) -> None:
    cache = ProgramCache(tmp_path, workload(env="my_env:make_env"), {})
    cache.put(JOB, KNOWN)
    assert cache.get(JOB) is None


def test_a_broken_file_is_as_if_it_were_not_there(cache: ProgramCache) -> None:
    cache.put(JOB, KNOWN)
    (file,) = cache.folder.iterdir()
    file.write_text("{")
    assert cache.get(JOB) is None


@pytest.mark.timeout(600)
def test_programs_are_compiled_and_one_that_fails_does_not_end_the_others(
    cache: ProgramCache, tmp_path: Path, cache_dir: Path
) -> None:
    bad = HardwareConfig(3, 5, 2, 1)  # 15 rows do not divide into 2 minibatches
    told: dict[HardwareConfig, Program] = {}
    with Compilers(tmp_path / "logs", Interrupts(), timeout_s=280, most=1) as compilers:

        def keep(job: Job, program: Program, seconds: float) -> None:
            assert seconds > 0
            told[job.config] = program

        jobs = [Job(HERE, bad), JOB]
        compilers.run(jobs, lambda job: cache.request(job, cache_dir), keep)
    assert told[bad].predicted_bytes is None
    assert "multiple of num_minibatches" in str(told[bad].failed)
    size, arguments = told[CONFIG].predicted_bytes, told[CONFIG].argument_bytes
    assert size is not None
    assert arguments is not None
    assert 0 < arguments < size < 10_000_000
    # The child has kept it by its text; the parent by what it follows from, once told to.
    assert len(list(cache.folder.iterdir())) == 1


@pytest.mark.timeout(600)
def test_a_fault_of_the_environment_ends_the_plan(tmp_path: Path, cache_dir: Path) -> None:
    cache = ProgramCache(tmp_path / "p", workload(env_params={"obs_dimm": 8}), {})
    with (
        Compilers(tmp_path / "logs", Interrupts(), timeout_s=280, most=1) as compilers,
        pytest.raises(UsageError, match="obs_dimm"),
    ):
        compilers.run([JOB, JOB], lambda job: cache.request(job, cache_dir), lambda *_: None)


def test_a_stop_ends_the_children_at_once(tmp_path: Path, cache_dir: Path) -> None:
    cache = ProgramCache(tmp_path / "p", workload(), {})
    interrupts = Interrupts()
    interrupts.count = 1
    with (
        Compilers(tmp_path / "logs", interrupts, timeout_s=280, most=2) as compilers,
        pytest.raises(KeyboardInterrupt),
    ):
        compilers.run([JOB] * 4, lambda job: cache.request(job, cache_dir), lambda *_: None)
