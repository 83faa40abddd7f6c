"""The hardware space: four categorical dimensions and which of their combinations are valid.

Apart from the sampler because the space is a fact of the study (hashed, stored, compared on
resume) while the sampler is only one way through it.
"""

import itertools
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache


@dataclass(frozen=True, slots=True, order=True)
class HardwareConfig:
    """The four numbers that a trial samples."""

    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int

    @property
    def batch_size(self) -> int:
        """Env-steps that one update collects."""
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        """Env-steps in one gradient step."""
        return self.batch_size // self.num_minibatches

    @property
    def is_valid(self) -> bool:
        """Whether the batch divides into its minibatches."""
        return self.batch_size % self.num_minibatches == 0

    def as_dict(self) -> dict[str, int]:
        """Return the four numbers by name."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.num_envs}x{self.num_steps} mb{self.num_minibatches} ep{self.num_epochs}"


def fewer_envs(config: HardwareConfig) -> HardwareConfig | None:
    """Return the config with at most half of the environments, None if none such is valid."""
    for num_envs in range(config.num_envs // 2, 0, -1):
        fewer = replace(config, num_envs=num_envs)
        if fewer.is_valid:
            return fewer
    return None


DIMENSIONS = tuple(field.name for field in fields(HardwareConfig))


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The choices of each dimension, sorted and without repeats.

    `only` leaves these of their combinations; None leaves all.
    """

    num_envs: tuple[int, ...]
    num_steps: tuple[int, ...]
    num_minibatches: tuple[int, ...]
    num_epochs: tuple[int, ...]
    only: frozenset[HardwareConfig] | None = None

    def choices(self) -> dict[str, tuple[int, ...]]:
        """Return the choices by dimension, in the order of `DIMENSIONS`."""
        return {name: getattr(self, name) for name in DIMENSIONS}

    def configs(self) -> list[HardwareConfig]:
        """Return every valid combination, in lexicographic order."""
        return list(_configs(self))

    def config_set(self) -> frozenset[HardwareConfig]:
        """Return the same as a set, made once for equal spaces."""
        return _config_set(self)


@lru_cache(maxsize=8)
def _configs(space: SearchSpace) -> tuple[HardwareConfig, ...]:
    combinations = itertools.product(*space.choices().values())
    valid = (config for c in combinations if (config := HardwareConfig(*c)).is_valid)
    return tuple(config for config in valid if space.only is None or config in space.only)


@lru_cache(maxsize=8)
def _config_set(space: SearchSpace) -> frozenset[HardwareConfig]:
    return frozenset(_configs(space))


CPU_SPACE = SearchSpace((8, 16, 32, 64, 128, 256, 512), (16, 32, 64, 128), (2, 4, 8), (2, 4))
GPU_SPACE = SearchSpace(
    (512, 1024, 2048, 4096, 8192, 12288, 16384), (128, 256, 384, 512), (4, 8, 16), (4, 8)
)
CPU_BASELINE = HardwareConfig(64, 64, 4, 4)
GPU_BASELINE = HardwareConfig(2048, 128, 8, 4)
