"""Where the CUDA compiler is looked for."""

import sys
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.targets import toolchain
from tuner.targets.toolchain import find_toolchain


def environment(folder: Path) -> Path:
    """Return the interpreter of an environment that looks like the one `make targets` builds."""
    python = folder / "bin" / "python"
    packages = folder / "lib" / "python3.11" / "site-packages"
    python.parent.mkdir(parents=True)
    for name in ("jax_cuda12_pjrt-0.10.2", "nvidia_cuda_nvcc_cu12-12.9.86", "pip-25.0"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    return python


def test_the_variable_names_an_interpreter(tmp_path: Path) -> None:
    python = environment(tmp_path)
    found = find_toolchain({"TUNER_TARGETS_PYTHON": str(python)})
    assert found is not None
    assert found.python == str(python)
    assert found.versions == ("jax_cuda12_pjrt-0.10.2", "nvidia_cuda_nvcc_cu12-12.9.86")


@pytest.mark.parametrize("named", ["nowhere/python", "/"])
def test_a_variable_that_names_no_program_is_refused(named: str) -> None:
    with pytest.raises(UsageError, match="TUNER_TARGETS_PYTHON must be a Python interpreter"):
        find_toolchain({"TUNER_TARGETS_PYTHON": named})


def test_the_environment_beside_the_main_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "PLUGINS", ())  # as on a machine without a GPU
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(toolchain, "__file__", str(tmp_path / "a" / "b" / "c" / "toolchain.py"))
    assert find_toolchain({}) is None
    python = environment(tmp_path / ".venv-targets")
    found = find_toolchain({})
    assert found is not None
    assert found.python == str(python)
