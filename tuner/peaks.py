"""What a device can reach, measured once per machine and kept on disk.

Apart from the measuring itself (`tuner.child.peaks`), which needs jax: this is the record, the
file it is kept in, and the question to a child where the file does not know the machine. Peaks
are measured and not looked up, because a datasheet knows neither the clock limits of this machine
nor what its virtual cores are worth.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from storage.atomic import atomic_write_text
from tuner.devices.base import DeviceInfo
from tuner.protocol import Event, PeaksRequest

SCHEMA = 1
"""Version of the file; what another version wrote is measured anew."""

DISTURBED_SPREAD = 2.0
"""Spread of repetitions above which peaks hold for one study and are not kept for the next."""

Ask = Callable[[PeaksRequest], Event]
"""Puts the question to a child, as `Bench.ask` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """The best that a device reached, and the spread of the repetitions that it is the best of.

    `matmul_flops_per_s` is of float32 as jax multiplies it by default (which on a GPU may be
    TF32), `bfloat16_flops_per_s` of bfloat16 on a GPU; `copy_bytes_per_s` counts bytes read and
    bytes written; `launch_s` is the time of a small kernel that depends on the one before, within
    a compiled loop. Spreads are (longest − shortest) / median of the repetitions' times. What
    could not be measured is `None`, and `reason` says why.
    """

    matmul_flops_per_s: float | None = None
    matmul_spread: float | None = None
    bfloat16_flops_per_s: float | None = None
    bfloat16_spread: float | None = None
    copy_bytes_per_s: float | None = None
    copy_spread: float | None = None
    launch_s: float | None = None
    launch_spread: float | None = None
    reason: str | None = None

    @property
    def is_disturbed(self) -> bool:
        """Whether repetitions differed so much that even the best may have been held up."""
        spreads = (self.matmul_spread, self.bfloat16_spread, self.copy_spread, self.launch_spread)
        return any(spread is not None and spread > DISTURBED_SPREAD for spread in spreads)

    def flops_per_s(self, dtype: str) -> float | None:
        """Return the peak for networks that compute in `dtype`.

        Without a peak of its own, as on a CPU, bfloat16 is held against float32's.
        """
        if dtype == "bfloat16" and self.bfloat16_flops_per_s is not None:
            return self.bfloat16_flops_per_s
        return self.matmul_flops_per_s

    def as_json(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: object) -> "Peaks":
        """Return the peaks that parsed JSON holds.

        Raises:
            ValueError: it holds anything but the fields of `Peaks` with positive numbers (spreads
                may be 0) or null.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise ValueError(f"peaks must have the fields {sorted(names)}, but got {data!r}")
        for name, value in data.items():
            if not _is_sound(name, value):
                raise ValueError(f"{name} must be a positive number or null, but got {value!r}")
        return cls(**data)


def path_beside(cache_dir: Path) -> Path:
    """Return the file of peaks that stands beside the folder of compiled programs."""
    return cache_dir.parent / "peaks.json"


def key_of(info: DeviceInfo, *, jax_version: str | None) -> str:
    """Return what names a device and what computes on it; other peaks are not valid for it.

    The device's uuid, or its name and the usable cores where it has none (CPUs), then platform
    and version of jax.
    """
    device = info.uuid or f"{info.name}, {info.cores:g} cores"
    return f"{device}; {info.platform}; jax {jax_version or 'unknown'}"


def reachable(ask: Ask, path: Path, key: str, *, request: PeaksRequest) -> Peaks:
    """Return the peaks of a machine: from the file, or measured by a child and written there.

    Where one could not be measured nothing is written: there may be more free memory next time.

    Args:
        ask: puts `request` to a child; only called where the file does not know `key`.
        path: the file; a missing, broken or foreign one is replaced.
        key: see `key_of`.
        request: the question.

    Raises:
        TunerError: the child could not answer.
    """
    known = read(path)
    if key in known:
        return known[key]
    answer = ask(request).data
    peaks = Peaks.from_json({field.name: answer.get(field.name) for field in fields(Peaks)})
    if None in (peaks.matmul_flops_per_s, peaks.copy_bytes_per_s, peaks.launch_s):
        return peaks
    if peaks.is_disturbed:
        return peaks
    # Peaks that cannot be kept hold for this study all the same; the next one measures again.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, read(path) | {key: peaks})
    return peaks


def read(path: Path) -> dict[str, Peaks]:
    """Return the peaks in a file by key; what is missing or not ours is as if never measured."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        return {}
    machines = data.get("machines")
    known: dict[str, Peaks] = {}
    for key, entry in machines.items() if isinstance(machines, dict) else ():
        with contextlib.suppress(ValueError):  # one entry at fault is no reason to lose the rest
            known[key] = Peaks.from_json(entry)
    return known


def write(path: Path, machines: dict[str, Peaks]) -> None:
    """Replace the file in one step; OSError where that is not possible."""
    entries = {key: peaks.as_json() for key, peaks in sorted(machines.items())}
    document = {"schema": SCHEMA, "machines": entries}
    atomic_write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def _is_sound(name: str, value: object) -> bool:
    if value is None:
        return True
    if name == "reason":
        return isinstance(value, str)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < float("inf") and (value > 0 or name.endswith("_spread"))
