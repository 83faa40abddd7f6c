"""What this machine is, what it allows and what can be measured on it.

Apart from the page that shows it (`tuner.report.checkup`) because it only finds out: plain data,
the document of `tuner doctor --json`.
"""

import importlib.metadata
import os
import platform
import resource
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.devices.base import Device, SharedDevice
from tuner.devices.cgroup import read_limits
from tuner.devices.cpu import memory_available_bytes, memory_limit_bytes, usable_cores
from tuner.devices.detect import find_device
from tuner.devices.nvml import NvmlDevice

SOURCES = {
    "gpm": "GPM: activity of the multiprocessors",
    "nvml": "NVML: share of time in which any kernel ran, which says little of the work",
}
COUNTERS = {
    "sm activity": "GPM",
    "sm occupancy": "GPM",
    "tensor activity": "GPM",
    "dram bandwidth": "GPM",
    "energy": "NVML",
    "power": "NVML",
    "temperature": "NVML",
    "throttling": "NVML",
    "clocks": "NVML",
    "process utilisation": "NVML: who else computes on the device",
}
"""Counters of a GPU by the name under which a refusal is told, and their source."""
PACKAGES = ("jax", "jaxlib", "optuna", "sqlalchemy", "gymnax", "optax", "nvidia-ml-py")
CUDA_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")
ENVIRONMENT_PREFIXES = ("JAX_", "XLA_", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
SETTLE_S = 0.3
"""How long other users of the CPU are watched."""


def examine(
    runs_dir: Path = Path("runs"), *, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Find out what can be known of this machine without jax and without touching the device.

    Args:
        runs_dir: where studies are kept; need not exist yet.
        environ: the environment variables to judge; by default those of this process.

    Returns:
        A document ready for JSON: `system`, `versions`, `device`, `limits`, `disk`, `users`,
        `environment`, `measurable`. Sizes are bytes, durations seconds, loads percent; `null` is
        what could not be found out or is not limited.
    """
    environ = os.environ if environ is None else environ
    found = find_device(environ=environ)
    device, no_gpu_reason = found.device, found.no_gpu_reason
    try:
        return {
            "system": {
                "os": platform.platform(),
                "python": platform.python_version(),
                "cpu": device.info().cpu,
            },
            "versions": {name: _version(name) for name in (*PACKAGES, *CUDA_PLUGINS)},
            "device": device.info().as_dict() | {"no_gpu_reason": no_gpu_reason},
            "limits": _limits(),
            "disk": _disk(runs_dir),
            "users": _users(device),
            "environment": {
                name: {"value": value, "means": _meaning(name, value)}
                for name, value in sorted(environ.items())
                if name.startswith(ENVIRONMENT_PREFIXES)
            },
            "measurable": _measurable(device),
        }
    finally:
        device.close()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _limits() -> dict[str, Any]:
    cgroup = read_limits()
    return {
        "usable_cores": usable_cores(),
        "cgroup_cpu_cores": cgroup.cpu_cores,
        "memory_limit_bytes": memory_limit_bytes(),
        "memory_available_bytes": memory_available_bytes(),
        "cgroup_memory_bytes": cgroup.memory_bytes,
        "pids_max": cgroup.pids,
        "ulimit_processes": _soft_limit(resource.RLIMIT_NPROC),
        "ulimit_address_space_bytes": _soft_limit(resource.RLIMIT_AS),
    }


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _disk(runs_dir: Path) -> dict[str, Any]:
    existing = next(p for p in (runs_dir.absolute(), *runs_dir.absolute().parents) if p.is_dir())
    return {
        "runs_dir": str(runs_dir),
        "free_bytes": shutil.disk_usage(existing).free,
        "is_writable": os.access(existing, os.W_OK | os.X_OK),
    }


def _users(device: Device) -> dict[str, Any]:
    """Return who else uses the device and the host; `processes` is null where none are told."""
    device.sample()
    time.sleep(SETTLE_S)
    sample = device.sample()
    processes = device.users() if isinstance(device, SharedDevice) else None
    return {
        "other_cpu_percent": sample.other_cpu_percent,
        "steal_percent": sample.steal_percent,
        "device_memory_bytes": sample.memory_bytes if device.info().kind == "gpu" else None,
        "processes": None
        if processes is None
        else [
            {"pid": u.pid, "name": u.name, "memory_bytes": u.memory_bytes, "sm_util": u.sm_util}
            for u in processes
            if not u.is_ours
        ],
    }


def _measurable(device: Device) -> dict[str, dict[str, str | None]]:
    """Return for each quantity the source it comes from, else the reason why it cannot be read."""
    info = device.info()
    if info.no_util_reason is not None:
        utilisation = _not(info.no_util_reason)
    elif info.kind == "cpu":
        utilisation = _from("psutil: the trial's share of the usable cores")
    else:
        utilisation = _from(SOURCES[device.util_source])
    if isinstance(device, NvmlDevice):
        device.sample()
        refused = device.unavailable
        counters = {
            what: _not(refused[what]) if what in refused else _from(source)
            for what, source in COUNTERS.items()
        }
    else:
        unread = "only an NVIDIA GPU's counters are read"
        counters = dict.fromkeys(COUNTERS, _not(unread))
    memory = (
        "Linux: growth of the trial's resident memory"
        if info.kind == "cpu"
        else "JAX: the allocator's peak in the trial's process"
    )
    return {"utilisation": utilisation, "memory": _from(memory), **counters}


def _from(source: str) -> dict[str, str | None]:
    return {"source": source, "reason": None}


def _not(reason: str) -> dict[str, str | None]:
    return {"source": None, "reason": reason}


def _meaning(name: str, value: str) -> str | None:
    """Say what an environment variable implies for a study; `None` for one we do not know."""
    share = "the share of the card's memory that JAX may use; the memory gate follows it"
    meanings = {
        "JAX_PLATFORMS": f"JAX computes on {value.split(',')[0] or 'what it finds'}",
        "JAX_ENABLE_X64": "numbers may be 64-bit: twice the memory, less speed",
        "JAX_DEBUG_NANS": "every result is checked for NaN, which is slow",
        "JAX_DISABLE_JIT": "nothing is compiled: every speed is meaningless",
        "XLA_FLAGS": "options of the compiler; kept, and part of what is measured",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": share,
        "XLA_CLIENT_MEM_FRACTION": share,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "whether JAX takes its share of the card at the start",
        "XLA_PYTHON_CLIENT_ALLOCATOR": "how JAX takes memory from the card",
        "CUDA_VISIBLE_DEVICES": "the GPUs that JAX sees; the first of them is measured",
    }
    return meanings.get(name)
