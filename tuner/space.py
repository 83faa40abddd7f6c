"""The space: four categorical dimensions, valid combinations of them, and perhaps a fifth.

Apart from the sampler because the space is a fact of the study (hashed, stored, compared on
resume) while the sampler is only one way through it.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class HardwareConfig:
    """The four numbers that a trial samples; with its learning rate where a study tries several.

    `learning_rate` is the one of the study's list, before `lr_scaling`; None where there is but
    one, which is then the workload's.
    """

    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int
    learning_rate: float | None = None

    @property
    def shape(self) -> "HardwareConfig":
        """The four numbers alone: what is compiled, takes memory and has a speed."""
        return self if self.learning_rate is None else replace(self, learning_rate=None)

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
        return {name: getattr(self, name) for name in DIMENSIONS}

    def params(self) -> dict[str, Any]:
        """Return what tells it from the others of a study: the four numbers, and the rate if any.

        The names are those of Optuna's parameters and of the fields of a record.
        """
        rate = {} if self.learning_rate is None else {LEARNING_RATE: self.learning_rate}
        return {**self.as_dict(), **rate}

    def __str__(self) -> str:
        rate = "" if self.learning_rate is None else f" lr{self.learning_rate:g}"
        numbers = f"{self.num_envs}x{self.num_steps} mb{self.num_minibatches} ep{self.num_epochs}"
        return numbers + rate


def config_of(params: Mapping[str, Any]) -> HardwareConfig | None:
    """Return the config in a trial's parameters, or None if it has none."""
    if any(name not in params for name in DIMENSIONS):
        return None
    numbers = {name: int(params[name]) for name in DIMENSIONS}
    return HardwareConfig(**numbers, learning_rate=params.get(LEARNING_RATE))


def in_order(configs: Iterable[HardwareConfig]) -> tuple[HardwareConfig, ...]:
    """Return configs sorted and without repeats, also where only some have a learning rate."""
    return tuple(sorted(set(configs), key=lambda config: tuple(config.params().values())))


def fewer_envs(config: HardwareConfig) -> HardwareConfig | None:
    """Return the config with at most half of the environments, None if none such is valid."""
    for num_envs in range(config.num_envs // 2, 0, -1):
        fewer = replace(config, num_envs=num_envs)
        if fewer.is_valid:
            return fewer
    return None


DIMENSIONS = ("num_envs", "num_steps", "num_minibatches", "num_epochs")
LEARNING_RATE = "learning_rate"
"""The fifth dimension, in a study that has several."""


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The choices of each dimension, sorted and without repeats.

    `only` leaves these of their combinations, with every rate where it names none; None leaves all.
    `learning_rate` is empty unless there are several.
    """

    num_envs: tuple[int, ...]
    num_steps: tuple[int, ...]
    num_minibatches: tuple[int, ...]
    num_epochs: tuple[int, ...]
    only: frozenset[HardwareConfig] | None = None
    learning_rate: tuple[float, ...] = ()

    def choices(self) -> dict[str, tuple[float, ...]]:
        """Return the choices by dimension, in the order of `DIMENSIONS`, a learning rate before.

        A process may be killed while it suggests them one by one: whatever has the four numbers
        has its rate, too.
        """
        rates = {LEARNING_RATE: self.learning_rate} if self.learning_rate else {}
        return {**rates, **{name: getattr(self, name) for name in DIMENSIONS}}

    def configs(self) -> list[HardwareConfig]:
        """Return every valid combination, in lexicographic order; rates in the order given."""
        return list(_configs(self))

    def shapes(self) -> list[HardwareConfig]:
        """Return the same without their learning rates, each once: what is compiled."""
        return list(dict.fromkeys(config.shape for config in _configs(self)))

    def config_set(self) -> frozenset[HardwareConfig]:
        """Return the same as a set, made once for equal spaces."""
        return _config_set(self)

    def config_of(self, params: Mapping[str, Any]) -> HardwareConfig | None:
        """Return the config in a trial's parameters, whatever else is among them; None of none."""
        return config_of({name: params[name] for name in self.choices() if name in params})


@lru_cache(maxsize=8)
def _configs(space: SearchSpace) -> tuple[HardwareConfig, ...]:
    rates: tuple[float | None, ...] = space.learning_rate or (None,)
    combinations = itertools.product(*(getattr(space, name) for name in DIMENSIONS), rates)
    valid = (config for c in combinations if (config := HardwareConfig(*c)).is_valid)
    return tuple(c for c in valid if space.only is None or {c, c.shape} & space.only)


@lru_cache(maxsize=8)
def _config_set(space: SearchSpace) -> frozenset[HardwareConfig]:
    return frozenset(_configs(space))


CPU_SPACE = SearchSpace((8, 16, 32, 64, 128, 256, 512), (16, 32, 64, 128), (2, 4, 8), (2, 4))
GPU_SPACE = SearchSpace(
    (512, 1024, 2048, 4096, 8192, 12288, 16384), (128, 256, 384, 512), (4, 8, 16), (4, 8)
)
CPU_BASELINE = HardwareConfig(64, 64, 4, 4)
GPU_BASELINE = HardwareConfig(2048, 128, 8, 4)
