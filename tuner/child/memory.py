"""Memory of a trial: what the compiled program will take, what there is, what it took.

On a GPU the allocator of jax keeps these figures. On a CPU there is no allocator to ask, so the
limit is what the host has left and the peak is the growth of the resident set over the measuring
window, read from /proc (Linux), with what the state of the training held at its start.
"""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from tuner.devices.cpu import memory_available_bytes
from tuner.gate import allowed_bytes


def predicted_bytes(compiled: Any, platform: str) -> int | None:
    """Return the device memory that a compiled program takes with its arguments and results.

    `argument + output + temp − alias` of `memory_analysis()`. On the CPU `peak_memory_in_bytes`
    leaves temporaries out; elsewhere the larger of the two is taken.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    total = (
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )
    if platform == "cpu":
        return int(total)
    return int(max(total, getattr(analysis, "peak_memory_in_bytes", 0)))


def limit_bytes(device: jax.Device, lowered_to: int | None, reserve: int) -> int | None:
    """Return what the gate allows, or None where nothing tells how much there is.

    0.95 × what the allocator may still hand out (GPU) or what the host has free within the limit
    of its control group (CPU), less `reserve`; at most `lowered_to`.
    """
    stats = device.memory_stats() if device.platform != "cpu" else None
    free: int | None
    if device.platform == "cpu":
        free = memory_available_bytes()
    elif stats and "bytes_limit" in stats:
        free = int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    else:
        free = None
    return allowed_bytes(free, lowered_to=lowered_to, reserve=reserve)


def exceeds(predicted: int | None, limit: int | None) -> bool:
    """Whether the gate refuses a program; what is not known refuses nothing."""
    return predicted is not None and limit is not None and predicted > limit


@dataclass(frozen=True, slots=True)
class Peak:
    """The peak of a trial in bytes and where it was read; `bytes` is None with the reason."""

    bytes: int | None
    source: str


class PeakMemory:
    """Measures the peak over the measuring window.

    Made after the warm-up: thread stacks, and the pages of compiled code, come with the first run
    of a program and are not its memory (about 25 MB where a program took 77).
    """

    def __init__(self, device: jax.Device, carry: Any) -> None:
        """Begin, with only `carry` allocated."""
        self._device = device
        self._carry_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(carry))
        self._resident_before = _reset_resident_peak() if device.platform == "cpu" else None

    def read(self) -> Peak:
        """Return the peak so far."""
        if self._device.platform == "cpu":
            peak = _status_bytes("VmHWM")
            if peak is None or self._resident_before is None:
                return Peak(None, "this system does not tell the resident peak")
            growth = max(0, peak - self._resident_before)
            return Peak(growth + self._carry_bytes, "resident growth")
        stats = self._device.memory_stats()
        if stats and "peak_bytes_in_use" in stats:
            return Peak(int(stats["peak_bytes_in_use"]), "allocator")
        return Peak(None, "the allocator does not tell its peak")


def held_bytes(device: jax.Device) -> int | None:
    """Return what the device's allocator has handed out; None on a CPU, which has none."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return int(stats["bytes_in_use"]) if stats and "bytes_in_use" in stats else None


def resident_bytes() -> int | None:
    """Return the resident size of this process, None where the system does not tell."""
    return _status_bytes("VmRSS")


def threads() -> int | None:
    """Return how many threads this process has, None where the system does not tell."""
    found = re.search(r"^Threads:\s+(\d+)", _status(), re.MULTILINE)
    return int(found[1]) if found else None


def _reset_resident_peak() -> int | None:
    """Set the resident peak to the present resident size and return that, in bytes."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide growth
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        return None
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", _status(), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _status() -> str:
    try:
        return Path("/proc/self/status").read_text()
    except OSError:
        return ""
