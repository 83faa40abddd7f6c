"""What this machine is, what it allows and what can be measured on it.

Apart from the commands because it finds out and judges but prints nothing: `examine` gathers plain
data (the document of `tuner doctor --json`), `sections` turns that into rows with remedies.
"""

import importlib.metadata
import os
import platform
import resource
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.devices.base import Device, DeviceUnavailable, SharedDevice
from tuner.devices.cgroup import read_limits
from tuner.devices.cpu import CpuDevice, memory_available_bytes, memory_limit_bytes, usable_cores
from tuner.devices.detect import hidden_gpu_reason
from tuner.devices.nvml import NvmlDevice

PACKAGES = ("jax", "jaxlib", "optuna", "sqlalchemy", "gymnax", "optax", "nvidia-ml-py")
CUDA_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin")
ENVIRONMENT_PREFIXES = ("JAX_", "XLA_", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
SETTLE_S = 0.3
"""How long other users of the CPU are watched."""
FEW_PROCESSES = 1024
"""JAX and its compiler start threads by the core, and a process that gets none aborts."""
LOW_DISK_BYTES = 1_000_000_000
LOUD_PERCENT = 10.0
"""Foreign load above this contaminates a measurement."""
BYTES_PER_GB = 1e9


@dataclass(frozen=True, slots=True)
class Row:
    """One finding; `value` is `None` where it could not be found out, `remedy` unset where ok."""

    what: str
    value: str | None
    is_ok: bool = True
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Findings that belong together."""

    title: str
    rows: tuple[Row, ...]


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
    device, no_gpu_reason = _open(environ)
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


def sections(found: Mapping[str, Any]) -> tuple[Section, ...]:
    """Judge what `examine` found: rows to show, each with a remedy where something is amiss."""
    return (
        Section("System", tuple(Row(what, value) for what, value in found["system"].items())),
        Section("Versions", tuple(_version_rows(found))),
        Section("Device", tuple(_device_rows(found))),
        Section("Limits", tuple(_limit_rows(found))),
        Section("Other users", tuple(_user_rows(found["users"]))),
        Section(
            "Environment",
            tuple(
                Row(f"{name}={entry['value']}", entry["means"], *_environment_fault(name, entry))
                for name, entry in found["environment"].items()
            ),
        ),
        Section(
            "What can be measured",
            tuple(
                Row(what, entry["source"] or f"no: {entry['reason']}")
                for what, entry in found["measurable"].items()
            ),
        ),
    )


def _open(environ: Mapping[str, str]) -> tuple[Device, str | None]:
    reason = hidden_gpu_reason(environ)
    if reason is None:
        try:
            return NvmlDevice(), None
        except DeviceUnavailable as error:
            reason = str(error)
    return CpuDevice(), reason


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
    if not isinstance(device, NvmlDevice):
        unread = "only an NVIDIA GPU's counters are read"
        return {
            "utilisation": _from("psutil: the trial's share of the usable cores"),
            "memory": _from("psutil: resident peak of the trial's process"),
            "energy": _not(unread),
            "power": _not(unread),
            "temperature": _not(unread),
            "throttling": _not(unread),
            "sm activity": _not("there is no GPU that can be read"),
        }
    device.sample()
    refused = device.unavailable
    found = {
        name: _not(refused[name]) if name in refused else _from("NVML")
        for name in ("utilisation", "energy", "power", "temperature", "throttling")
    }
    found["memory"] = _from("JAX: the allocator's peak in the trial's process")
    found["sm activity"] = _not("NVML's utilisation tells only that some kernel was running")
    return found


def _from(source: str) -> dict[str, str | None]:
    return {"source": source, "reason": None}


def _not(reason: str) -> dict[str, str | None]:
    return {"source": None, "reason": reason}


def _version_rows(found: Mapping[str, Any]) -> list[Row]:
    versions = found["versions"]
    rows = [
        Row(name, versions[name])
        if versions[name]
        else Row(name, None, False, f"install it: pip install {name}")
        for name in PACKAGES
    ]
    plugins = [f"{name} {versions[name]}" for name in CUDA_PLUGINS if versions[name]]
    is_gpu_unused = found["device"]["kind"] == "gpu" and not plugins
    remedy = 'JAX will compute on the CPU: pip install "jax[cuda12]"' if is_gpu_unused else None
    rows.append(Row("JAX's CUDA plugin", ", ".join(plugins) or "none", not is_gpu_unused, remedy))
    return rows


def _device_rows(found: Mapping[str, Any]) -> list[Row]:
    device = found["device"]
    rows = [
        Row("name", device["name"]),
        Row("memory", _size(device["memory_bytes"])),
        Row("platform", device["platform"]),
    ]
    if device["kind"] == "gpu":
        capability = device["compute_capability"]
        limit = device["power_limit_w"]
        rows += [
            Row("uuid", device["uuid"]),
            Row("driver", device["driver"]),
            Row("compute capability", ".".join(map(str, capability)) if capability else None),
            Row("power limit", f"{limit:.0f} W" if limit is not None else None),
        ]
    else:
        rows.append(Row("GPU", f"none: {device['no_gpu_reason']}"))
    return rows


def _limit_rows(found: Mapping[str, Any]) -> list[Row]:
    limits, disk = found["limits"], found["disk"]
    free = limits["memory_available_bytes"]
    space = limits["ulimit_address_space_bytes"]
    quota = limits["cgroup_cpu_cores"]
    return [
        Row("usable cores", f"{limits['usable_cores']:g}"),
        Row("cgroup CPU quota", "none" if quota is None else f"{quota:g} cores"),
        Row("memory limit", _size(limits["memory_limit_bytes"])),
        _warned("memory free now", _size(free), free < BYTES_PER_GB, "close other programs"),
        _count_row("pids.max", limits["pids_max"], "raise the container's limit on processes"),
        _count_row("ulimit -u", limits["ulimit_processes"], "raise it: ulimit -u unlimited"),
        _warned(
            "ulimit -v",
            "unlimited" if space is None else _size(space),
            space is not None,
            "JAX reserves more addresses than it uses: ulimit -v unlimited",
        ),
        _warned(
            f"disk free for {disk['runs_dir']}",
            _size(disk["free_bytes"]) if disk["is_writable"] else "cannot be written",
            disk["free_bytes"] < LOW_DISK_BYTES or not disk["is_writable"],
            "free some space or choose another --runs-dir",
        ),
    ]


def _user_rows(users: Mapping[str, Any]) -> list[Row]:
    rows = [
        _load_row("CPU used by others", users["other_cpu_percent"], "stop what else is running"),
        _load_row("CPU stolen", users["steal_percent"], "the host is overbooked; measure later"),
    ]
    processes = users["processes"]
    if processes is None:
        return [*rows, Row("processes on the device", None)]
    for process in processes:
        held = _size(process["memory_bytes"]) or "memory unknown"
        rows.append(
            _warned(
                f"process {process['pid']} on the device",
                f"{process['name'] or 'name unknown'}, {held}",
                process["sm_util"] != 0,
                "stop it while a study runs, or its load is measured with ours",
            )
        )
    return rows if processes else [*rows, Row("processes on the device", "none")]


def _warned(what: str, value: str | None, is_amiss: bool, remedy: str) -> Row:
    return Row(what, value, not is_amiss, remedy if is_amiss else None)


def _count_row(what: str, limit: int | None, remedy: str) -> Row:
    value = "unlimited" if limit is None else str(limit)
    return _warned(what, value, limit is not None and limit < FEW_PROCESSES, remedy)


def _load_row(what: str, percent: float | None, remedy: str) -> Row:
    value = None if percent is None else f"{percent:.0f} %"
    return _warned(what, value, percent is not None and percent > LOUD_PERCENT, remedy)


def _size(count: int | None) -> str | None:
    return None if count is None else f"{count / BYTES_PER_GB:.1f} GB"


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
        "CUDA_VISIBLE_DEVICES": "the GPUs that JAX sees; NVML counts all of them",
    }
    return meanings.get(name)


def _environment_fault(name: str, entry: Mapping[str, Any]) -> tuple[bool, str | None]:
    value = str(entry["value"]).strip().lower()
    is_set = value not in ("", "0", "false")
    if name == "XLA_PYTHON_CLIENT_ALLOCATOR" and value == "platform":
        return False, "every allocation goes to the driver and speeds mean nothing: unset it"
    if name in ("JAX_DISABLE_JIT", "JAX_ENABLE_X64", "JAX_DEBUG_NANS") and is_set:
        return False, f"what is measured so is not how you train: unset {name}"
    if name == "CUDA_VISIBLE_DEVICES" and is_set and value != "-1":
        return False, "make sure that device 0 here is the GPU that JAX uses, or unset it"
    return True, None
