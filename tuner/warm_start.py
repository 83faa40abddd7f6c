"""Configs to begin a search with: those of profiles from other machines, workloads or studies.

Apart from the sampler because it proposes nothing: the configs are queued once, behind the
baseline, and what comes of them is learned from like any other trial.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna

from storage.profile import Profile
from tuner.bench import Say
from tuner.space import HardwareConfig, SearchSpace, config_of
from tuner.workload import hardware_config

FACT = "warm_start"
"""The fact that holds a study's configs to begin with: the files may be gone when it goes on."""


@dataclass(frozen=True, slots=True)
class Start:
    """A config to begin with, and which profile wanted what."""

    config: HardwareConfig
    wanted: HardwareConfig
    source: str

    def __str__(self) -> str:
        if self.config == self.wanted:
            return f"{self.config} ({self.source})"
        return f"{self.config} ({self.source}, nearest to {self.wanted})"


def starts_in(
    profiles: Iterable[Profile],
    space: SearchSpace,
    lr_scale: Callable[[HardwareConfig], float] = lambda config: 1.0,
) -> list[Start]:
    """Return where each profile's config lies in a space, the first of equal ones.

    A profile's learning rate, over `lr_scale` of its config, counts in a space that has several.
    """
    starts: dict[HardwareConfig, Start] = {}
    for profile in profiles:
        wanted = hardware_config(profile)
        if space.learning_rate and (rate := profile.learning_rate or 0.0) > 0:
            wanted = replace(wanted, learning_rate=rate / lr_scale(wanted))
        config = nearest(wanted, space)
        starts.setdefault(config, Start(config, wanted, profile.profile))
    return list(starts.values())


def nearest(wanted: HardwareConfig, space: SearchSpace) -> HardwareConfig:
    """Return the valid config of a space with the least distance in log2 of its numbers."""
    names = wanted.params()

    def distance(config: HardwareConfig) -> float:
        ratios = (getattr(config, name) / number for name, number in names.items())
        return sum(math.log2(ratio) ** 2 for ratio in ratios)

    return min(space.configs(), key=distance)


def as_fact(starts: Iterable[Start]) -> list[dict[str, Any]]:
    """Return what is stored on the study."""
    return [start.config.params() for start in starts]


def queue(study: optuna.Study, facts: Mapping[str, Any]) -> None:
    """Queue the configs to begin with that no trial has yet, in their order.

    May be called again after a kill in between.
    """
    known = {
        config_of({**trial.system_attrs.get("fixed_params", {}), **trial.params})
        for trial in study.get_trials(deepcopy=False)
    }
    for numbers in facts.get(FACT, ()):
        if HardwareConfig(**numbers) not in known:
            study.enqueue_trial(numbers)


def tell(starts: Iterable[Start], say: Say) -> None:
    """Tell the user what a search begins with, in one line."""
    if told := ", ".join(map(str, starts)):
        say(f"warm start after the baseline: {told}")
