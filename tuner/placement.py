"""Where the workers of one machine measure: a share of the cores, or a GPU each.

Apart from the workers themselves because a place is a property of the process (its affinity, what
CUDA shows it) and must be taken before anything looks at the device.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tuner.config import StudyConfig
from tuner.devices.base import DeviceUnavailable
from tuner.devices.cpu import memory_limit_bytes, own_cores, usable_cores
from tuner.devices.cuda import visible_devices
from tuner.devices.detect import hidden_gpu_reason
from tuner.errors import UsageError

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Place:
    """What one worker measures on: the cores it is pinned to, or the GPU that CUDA shows it.

    Both None: wherever the process may run.
    """

    cores: tuple[int, ...] | None = None
    gpu: str | None = None

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that make a process measure here."""
        return {} if self.gpu is None else {VISIBLE: self.gpu}

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Let this thread, and the processes that it starts in the body, run on these cores."""
        cores = own_cores()
        if self.cores is not None:
            os.sched_setaffinity(0, self.cores)
        try:
            yield
        finally:
            if self.cores is not None:
                os.sched_setaffinity(0, cores)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let this whole process measure here in the body; for the main thread only."""
        before = {name: os.environ.get(name) for name in self.environ}
        os.environ.update(self.environ)
        try:
            with self.pinned():
                yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def places_for(config: StudyConfig) -> list[Place]:
    """Return the place of each worker that a study's settings ask for, the leader's first.

    Raises:
        UsageError: `--workers` or `--devices` ask for what this machine does not have.
    """
    if config.devices is not None and config.workers != 1:
        raise UsageError(
            f"--workers must be left out with --devices, one worker each, but got "
            f"{config.workers}; leave it out"
        )
    if config.devices is not None:
        return [Place(gpu=gpu) for gpu in gpus(config.devices)]
    if config.workers == 1:
        return [Place()]
    if hidden_gpu_reason() is None and (count := _count_gpus()[0]):
        raise UsageError(
            f"--workers must be 1 where jax computes on a GPU, but got {config.workers} with "
            f"{count} GPUs; use --devices {','.join(map(str, range(count)))}"
        )
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(
            f"--workers must be 1 where a process cannot be pinned to cores, but got "
            f"{config.workers} on {sys.platform}; leave it out"
        )
    return [Place(cores=cores) for cores in shares(_cores_to_share(), config.workers)]


def gpus(indices: Sequence[int]) -> list[str]:
    """Return what `CUDA_VISIBLE_DEVICES` must be for each of the GPUs that CUDA shows here.

    Raises:
        UsageError: one of them is not here.
    """
    count, reason = _count_gpus()
    asked = ",".join(map(str, indices))
    if count == 0:
        raise UsageError(
            f"--devices must name GPUs of this machine, but got {asked} where jax has none "
            f"({reason}); leave it out, or use --workers N to share the cores"
        )
    if len(set(indices)) < len(indices) or any(index not in range(count) for index in indices):
        raise UsageError(
            f"--devices must be different numbers from 0 to {count - 1}, for the {count} GPUs "
            f"here, but got {asked}; see nvidia-smi -L and {VISIBLE}"
        )
    return visible_names(indices, os.environ.get(VISIBLE))


def visible_names(indices: Sequence[int], shown: str | None) -> list[str]:
    """Return how `CUDA_VISIBLE_DEVICES` names GPUs, where it is `shown` now (None: unset)."""
    if shown is None:
        return [str(index) for index in indices]
    names = shown.split(",")
    return [names[index].strip() for index in indices]


def shares(cores: Sequence[int], workers: int) -> list[tuple[int, ...]]:
    """Return an equal share of the cores for each worker; what does not divide is left idle.

    Raises:
        UsageError: there are more workers than cores.
    """
    size = len(cores) // workers
    if size == 0:
        raise UsageError(
            f"--workers must be at most the number of cores, which is {len(cores)} here, but got "
            f"{workers}; give --workers {len(cores)} or fewer"
        )
    return [tuple(sorted(cores[size * i : size * (i + 1)])) for i in range(workers)]


def in_order_of_sharing(cores: Sequence[int], root: Path = Path("/")) -> list[int]:
    """Return cores so that those that share a package or a physical core are neighbours.

    Read from sysfs (`topology/physical_package_id`, `thread_siblings_list`); by number where that
    does not tell.
    """

    def key(core: int) -> tuple[int, int, int]:
        topology = root / f"sys/devices/system/cpu/cpu{core}/topology"
        try:
            package = int((topology / "physical_package_id").read_text())
            siblings = (topology / "thread_siblings_list").read_text()
            first = int(siblings.replace("-", ",").split(",")[0])
        except (OSError, ValueError):
            return (0, core, core)
        return (package, first, core)

    return sorted(cores, key=key)


def with_own_share(config: StudyConfig) -> StudyConfig:
    """Return the settings with the memory gate lowered to what each worker on a CPU may have."""
    if config.workers == 1:
        return config
    share = memory_limit_bytes() // config.workers
    limit = share if config.memory_limit is None else min(share, config.memory_limit)
    return config.model_copy(update={"memory_limit": limit})


def _cores_to_share() -> list[int]:
    """Return the cores that may be used, no more than the control group lets be busy at once."""
    return in_order_of_sharing(own_cores())[: max(1, int(usable_cores()))]


def _count_gpus(environ: Mapping[str, str] | None = None) -> tuple[int, str | None]:
    """Return how many GPUs CUDA shows, and why there is none."""
    reason = hidden_gpu_reason(environ)
    if reason is not None:
        return 0, reason
    try:
        return len(visible_devices(environ)), None
    except DeviceUnavailable as error:
        return 0, str(error)
