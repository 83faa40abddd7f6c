"""The page of `tuner doctor`: what this machine is, what it can measure, and what to do about it.

Apart from the finding out (`tuner.doctor`) because this judges: what is amiss gets a remedy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from tuner.contamination import FOREIGN_LOAD_PERCENT
from tuner.doctor import CUDA_PLUGINS, PACKAGES
from tuner.report.paragraph import print_paragraph

FEW_PROCESSES = 1024
"""JAX and its compiler start threads by the core, and a process that gets none aborts."""
LOW_DISK_BYTES = 1_000_000_000
BYTES_PER_GB = 1e9
REMEDIES = {
    "Permission": "ask the administrator for access to the GPU's counters",
    "permission": "ask the administrator for access to the GPU's counters",
    "Not Supported": "this card does not have it",
    "no utilisation of a MIG instance": "GPM's SM activity stands in where the card has it",
}


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
                Row(what, entry["source"] or f"no: {entry['reason']}", remedy=_remedy(entry))
                for what, entry in found["measurable"].items()
            ),
        ),
    )


def print_doctor(found: Mapping[str, Any]) -> None:
    """Print what the doctor found, with a remedy where something is not as it should be."""
    console = Console(highlight=False)
    for section in sections(found):
        if not section.rows:
            continue
        console.print(f"\n[bold]{section.title}[/bold]")
        for row in section.rows:
            mark = "  " if row.is_ok else "! "
            told = f"{row.what}: {row.value or 'unknown'}"
            print_paragraph(console, told, label=mark, indent=4)
            if row.remedy:
                print_paragraph(console, row.remedy, label="    ")


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
            Row("PCI id", device["pci_bus_id"]),
            Row("highest clock", _clock(device["sm_clock_max_mhz"])),
            Row("part of a divided card (MIG)", "yes" if device["is_mig"] else "no"),
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
    return _warned(what, value, percent is not None and percent > FOREIGN_LOAD_PERCENT, remedy)


def _size(count: int | None) -> str | None:
    return None if count is None else f"{count / BYTES_PER_GB:.1f} GB"


def _remedy(entry: Mapping[str, str | None]) -> str | None:
    """Return what to do about a quantity that cannot be read, if anything can be done."""
    reason = entry["reason"] or ""
    return next((remedy for word, remedy in REMEDIES.items() if word in reason), None)


def _clock(megahertz: float | None) -> str | None:
    return None if megahertz is None else f"{megahertz:.0f} MHz"


def _environment_fault(name: str, entry: Mapping[str, Any]) -> tuple[bool, str | None]:
    value = str(entry["value"]).strip().lower()
    is_set = value not in ("", "0", "false")
    if name == "XLA_PYTHON_CLIENT_ALLOCATOR" and value == "platform":
        return False, "every allocation goes to the driver and speeds mean nothing: unset it"
    if name in ("JAX_DISABLE_JIT", "JAX_ENABLE_X64", "JAX_DEBUG_NANS") and is_set:
        return False, f"what is measured so is not how you train: unset {name}"
    return True, None
