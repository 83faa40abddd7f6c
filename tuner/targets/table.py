"""The table of known GPUs, how their names are matched, and the text that XLA compiles for.

The figures are data (`gpus.yaml`), each with its source: a new card is an entry there and no code.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tuner.errors import UsageError

NEAREST = 3
"""How many names are suggested for one that is not known."""

_LIMITS = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "block_dim_limit_x": 2147483647,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "thread_dim_limit_x": 1024,
    "thread_dim_limit_y": 1024,
    "thread_dim_limit_z": 64,
}
"""The same for every CUDA device since compute capability 7.0 (CUDA C++ Programming Guide)."""

_LIBRARIES = (
    'platform_name: "CUDA"',
    "dnn_version_info { major: 9 minor: 10 patch: 0 }",
    "runtime_version { major: 12 minor: 8 patch: 0 }",
)
"""The libraries that XLA's own descriptions name. Version texts inside `gpu_device_info` and a cub
version are left out: with them XLA looks for a device when it compiles a sort."""

_MEMORY = re.compile(r"^[^#\n]*\bdevice_memory_size\s*:\s*(\d+)", re.MULTILINE)
_NAME = re.compile(r'^[^#\n]*\bdevice_description_str\s*:\s*"([^"]*)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU that programs are compiled for; `description` is a `GpuTargetConfigProto` as text.

    `memory_bytes` is None where a file of the user's does not say; `is_known` tells the table's
    own, which the tests have compiled for.
    """

    name: str
    memory_bytes: int | None
    description: str
    source: str
    is_known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One entry of the table: what CUDA reports of a device, and where that is published.

    `memory_bandwidth` in bytes per second, `clock_ghz` the highest of the multiprocessors.
    """

    name: str
    also: tuple[str, ...]
    compute_capability: str
    core_count: int
    memory_bytes: int
    memory_bandwidth: int
    l2_cache_bytes: int
    clock_ghz: float
    source: str
    architecture: Mapping[str, Any]

    def target(self) -> Target:
        """Return what programs are compiled for."""
        return Target(self.name, self.memory_bytes, self._description(), self.source)

    def as_dict(self) -> dict[str, Any]:
        """Return what `tuner targets --json` prints of a GPU."""
        return {
            "name": self.name,
            "also": list(self.also),
            "compute_capability": self.compute_capability,
            "core_count": self.core_count,
            "memory_gb": self.memory_bytes / 1e9,
            "memory_bandwidth_gb_per_s": self.memory_bandwidth / 1e9,
            "l2_cache_bytes": self.l2_cache_bytes,
            "clock_ghz": self.clock_ghz,
            "source": self.source,
            "architecture_source": self.architecture["source"],
        }

    def _description(self) -> str:
        figures: dict[str, object] = {
            **_LIMITS,
            **{k: v for k, v in self.architecture.items() if k not in ("source", "accelerated")},
            "core_count": self.core_count,
            "memory_bandwidth": self.memory_bandwidth,
            "l2_cache_size": self.l2_cache_bytes,
            "clock_rate_ghz": self.clock_ghz,
            "device_memory_size": self.memory_bytes,
        }
        return describe(self.name, self.compute_capability, figures)


def describe(name: str, compute_capability: str, figures: Mapping[str, object]) -> str:
    """Return a `GpuTargetConfigProto` as text.

    Args:
        name: of the device, as its driver tells it.
        compute_capability: as `9.0`.
        figures: the other fields of `gpu_device_info`, by their names in XLA's proto.
    """
    major, minor = compute_capability.split(".")
    accelerated = architectures().get(compute_capability, {}).get("accelerated")
    extension = " feature_extension: ACCELERATED_FEATURES" if accelerated else ""
    return "\n".join(
        (
            "gpu_device_info {",
            *(f"  {field}: {value}" for field, value in figures.items()),
            f"  cuda_compute_capability {{ major: {major} minor: {minor}{extension} }}",
            "}",
            *_LIBRARIES,
            f'device_description_str: "{name}"',
            "",
        )
    )


@cache
def known() -> tuple[Gpu, ...]:
    """Return the GPUs of the table, in its order."""
    data = _table()
    return tuple(
        Gpu(
            **{
                **entry,
                "also": tuple(entry["also"]),
                "source": _source(entry["source"], data["sources"]),
                "architecture": architectures()[entry["compute_capability"]],
            }
        )
        for entry in data["gpus"]
    )


@cache
def architectures() -> dict[str, dict[str, Any]]:
    """Return what follows from a compute capability alone, by capability."""
    data = _table()
    return {
        capability: {**figures, "source": _source(figures["source"], data["sources"])}
        for capability, figures in data["architectures"].items()
    }


def find(name: str) -> Gpu:
    """Return the GPU of a name, whatever its case, spaces, dashes and maker.

    Raises:
        UsageError: there is none; the nearest names are told.
    """
    wanted = _plain(name)
    by_name = {_plain(known_as): gpu for gpu in known() for known_as in (gpu.name, *gpu.also)}
    if wanted in by_name:
        return by_name[wanted]
    # The size may stand anywhere in a name: "80GB H100 SXM".
    words = set(_words(name))
    same = {gpu.name: gpu for gpu in known() if any(set(_words(n)) == words for n in _names(gpu))}
    if len(same) == 1:
        return next(iter(same.values()))
    nearest = difflib.get_close_matches(wanted, by_name, n=3 * NEAREST, cutoff=0.4)
    suggested = list(dict.fromkeys(by_name[found].name for found in nearest))[:NEAREST]
    remedy = f"did you mean {' or '.join(suggested)}?" if suggested else "see `tuner targets`"
    raise UsageError(
        f"--target must be a GPU that `tuner targets` lists, but got {name!r}; {remedy}"
    )


def from_file(path: Path) -> Target:
    """Return the target that a file describes: a `GpuTargetConfigProto` as text.

    Only what a plan needs of it is read here; whether XLA takes it, the compiler says.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"--target-file must be a text file that can be read, but got {path}: {reason}; "
            "`tuner targets --export` writes one where there is a GPU"
        ) from None
    memory, name = _MEMORY.search(text), _NAME.search(text)
    return Target(
        name=name[1] if name else path.name,
        memory_bytes=int(memory[1]) if memory else None,
        description=text,
        source=str(path),
        is_known=False,
    )


@cache
def _table() -> Any:
    file = resources.files("tuner.targets").joinpath("gpus.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _source(source: str | Mapping[str, str], sources: Mapping[str, str]) -> str:
    if isinstance(source, str):
        return source
    kind, file = next(iter(source.items()))
    return sources[kind].format(file=file)


def _names(gpu: Gpu) -> tuple[str, ...]:
    return (gpu.name, *gpu.also)


def _words(name: str) -> list[str]:
    """Return the words of a name without maker and family: `80gb` and `80 GB` are the same."""
    plain = re.sub(r"(\d+)\s*(gib|gb|g)\b", r"\1gb", name.lower())
    spaced = re.sub(r"[^a-z0-9]+", " ", plain).split()
    return [word for word in spaced if word not in ("nvidia", "geforce", "tesla")]


def _plain(name: str) -> str:
    return "".join(_words(name))
