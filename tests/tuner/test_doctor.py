import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuner.doctor import examine
from tuner.report.checkup import Row, sections


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    return examine(Path("runs"), environ={"JAX_PLATFORMS": "cpu"})


@pytest.fixture
def found(here: dict[str, Any]) -> dict[str, Any]:
    """What was found on this machine, quieted where it depends on what else runs."""
    found = copy.deepcopy(here)
    found["users"] |= {"other_cpu_percent": 1.0, "steal_percent": 0.0}
    found["limits"] |= {"pids_max": None, "ulimit_processes": 9000}
    found["limits"] |= {"ulimit_address_space_bytes": None, "memory_available_bytes": 8 * 10**9}
    found["disk"] |= {"free_bytes": 50 * 10**9, "is_writable": True}
    return found


def rows(found: dict[str, Any]) -> dict[str, Row]:
    return {row.what: row for section in sections(found) for row in section.rows}


def amiss(found: dict[str, Any]) -> list[Row]:
    return [row for row in rows(found).values() if not row.is_ok]


def test_the_examination_is_one_json_document(here: dict[str, Any]) -> None:
    assert json.loads(json.dumps(here)).keys() == here.keys()
    assert here["versions"]["jax"] is not None
    assert here["versions"]["nvidia-ml-py"] is not None
    assert here["device"]["kind"] == "cpu"
    assert here["device"]["no_gpu_reason"].startswith("JAX_PLATFORMS=cpu")
    assert here["limits"]["usable_cores"] > 0
    assert here["limits"]["memory_available_bytes"] <= here["limits"]["memory_limit_bytes"]
    assert here["disk"]["free_bytes"] > 0


def test_each_quantity_has_a_source_or_a_reason(here: dict[str, Any]) -> None:
    quantities = here["measurable"]
    assert set(quantities) == {
        "utilisation",
        "memory",
        "energy",
        "power",
        "temperature",
        "throttling",
        "clocks",
        "process utilisation",
        "sm activity",
        "sm occupancy",
        "tensor activity",
        "dram bandwidth",
    }
    assert all((q["source"] is None) != (q["reason"] is None) for q in quantities.values())
    assert quantities["utilisation"]["source"].startswith("psutil")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from tuner.doctor import examine; examine();"
        "print([m for m in ('jax', 'optuna', 'sqlalchemy', 'gymnax') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_a_sound_machine_has_no_warning(found: dict[str, Any]) -> None:
    assert amiss(found) == []


def test_what_is_amiss_has_a_remedy(found: dict[str, Any]) -> None:
    found["versions"]["optax"] = None
    found["limits"] |= {"pids_max": 100, "ulimit_processes": 64, "memory_available_bytes": 10**8}
    found["limits"]["ulimit_address_space_bytes"] = 8 * 10**9
    found["users"] |= {"other_cpu_percent": 35.0, "steal_percent": 12.0}
    found["disk"]["free_bytes"] = 10**8
    warned = {row.what: row for row in amiss(found)}
    assert set(warned) == {
        "optax",
        "pids.max",
        "ulimit -u",
        "ulimit -v",
        "memory free now",
        "CPU used by others",
        "CPU stolen",
        "disk free for runs",
    }
    assert all(row.remedy for row in warned.values())
    assert warned["optax"].value is None
    assert warned["CPU used by others"].value == "35 %"


def test_a_folder_that_cannot_be_written(found: dict[str, Any]) -> None:
    found["disk"]["is_writable"] = False
    row = rows(found)["disk free for runs"]
    assert (row.value, row.is_ok) == ("cannot be written", False)


def test_what_could_not_be_found_out_is_no_warning(found: dict[str, Any]) -> None:
    found["users"] |= {"other_cpu_percent": None, "steal_percent": None}
    assert rows(found)["CPU stolen"] == Row("CPU stolen", None)


def test_a_gpu_without_a_cuda_build_of_jax(found: dict[str, Any]) -> None:
    found["device"] |= {"kind": "gpu", "compute_capability": [9, 0], "power_limit_w": 700.0}
    found["device"] |= {"pci_bus_id": "00000000:65:00.0", "sm_clock_max_mhz": 1980.0}
    found["versions"] |= {"jax-cuda12-plugin": None, "jax-cuda13-plugin": None}
    shown = rows(found)
    assert shown["compute capability"].value == "9.0"
    assert shown["power limit"].value == "700 W"
    assert shown["highest clock"].value == "1980 MHz"
    assert not shown["JAX's CUDA plugin"].is_ok
    found["versions"]["jax-cuda12-plugin"] = "0.10.2"
    assert rows(found)["JAX's CUDA plugin"] == Row("JAX's CUDA plugin", "jax-cuda12-plugin 0.10.2")


def test_processes_on_the_device(found: dict[str, Any]) -> None:
    process = {"pid": 7, "name": "Xorg", "memory_bytes": 3 * 10**8, "sm_util": 0.0}
    found["users"]["processes"] = []
    assert rows(found)["processes on the device"].value == "none"
    found["users"]["processes"] = [process]
    assert rows(found)["process 7 on the device"] == Row("process 7 on the device", "Xorg, 0.3 GB")
    for computing in (40.0, None):
        found["users"]["processes"] = [process | {"sm_util": computing}]
        assert not rows(found)["process 7 on the device"].is_ok


def test_variables_that_spoil_a_measurement() -> None:
    environ = {
        "XLA_PYTHON_CLIENT_ALLOCATOR": "platform",
        "JAX_DISABLE_JIT": "1",
        "JAX_ENABLE_X64": "True",
        "JAX_DEBUG_NANS": "1",
    }
    shown = rows(examine(environ=environ))
    for name, value in environ.items():
        row = shown[f"{name}={value}"]
        assert not row.is_ok
        assert row.remedy is not None
        assert row.value is not None


def test_variables_that_bear_on_a_study() -> None:
    environ = {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_JIT": "0",
        "XLA_FLAGS": "--xla_dump_to=x",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    found = examine(environ={"HOME": "/", **environ})
    assert list(found["environment"]) == sorted(environ)
    shown = rows(found)
    for name, value in environ.items():
        assert shown[f"{name}={value}"].is_ok
        assert shown[f"{name}={value}"].value is not None


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    found = examine(tmp_path / "a" / "b", environ={})
    assert found["disk"]["is_writable"]
    assert not (tmp_path / "a").exists()
