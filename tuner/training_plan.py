"""What a training will be: a profile, the flags that win over it, and where it stands already.

Apart from the training itself because all of this is decided, and refused, before a process is
started: which numbers apply, what differs from what the profile was measured on, and whether a
folder holds this training or another.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.names import is_factory
from storage.profile import Profile
from storage.profile_files import read
from tuner.config import MarketSettings, StudyConfig, WorkloadSettings, flag
from tuner.data_files import data_facts
from tuner.errors import Refused, UsageError
from tuner.settings import load_config
from tuner.space import HardwareConfig
from tuner.training_files import FACTS_FILE, LOCK_FILE, LOGS_FOLDER
from tuner.training_settings import TrainingSettings, training_settings
from tuner.workload import (
    edited_rate,
    hardware_config,
    market_settings,
    ppo_settings,
    require_sound,
    workload_facts,
    workload_hash,
)

WORKLOAD_FLAGS = (*WorkloadSettings.model_fields, *MarketSettings.model_fields)
OWN_TO_TRAINING = ("hash", "ppo", "lr_anneal_env_steps")
"""Facts of a workload that a training does not share: scalars are announced, budgets its own."""
PLACES = ("data.path", "market.finer_data.path")
"""Where data lie: they may be moved."""
MOST_ANNEALED = 2**32 - 1
"""Env-steps that a linear schedule can count to, see `tuner.ppo.schedule`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """One training as it was asked for.

    `announcements` say which flags won over the profile; `differences` what of hardware-free
    workload differs from what the profile was measured on.
    """

    profile: Profile
    settings: TrainingSettings
    config: StudyConfig
    hardware: HardwareConfig
    announcements: tuple[str, ...]
    differences: tuple[str, ...]

    def identity(self) -> dict[str, Any]:
        """Return, by dotted name, everything that a training that goes on must share."""
        facts = workload_facts(self.config, {}, data_facts(self.config))
        if facts["lr_schedule"] == "linear" and facts["lr_anneal_env_steps"] is None:
            facts["lr_anneal_env_steps"] = self.settings.total_steps
        flat = flat_facts(facts).items()
        shared = {name: value for name, value in flat if name not in ("hash", *PLACES)}
        return {**self.hardware.as_dict(), "seed": self.settings.seed, **shared}


def make_plan(path: Path, flags: Mapping[str, object], *, device_kind: str) -> TrainingPlan:
    """Return what a profile and the flags on top of it ask for.

    Args:
        path: of the profile.
        flags: settings of the training and of its workload; None means not given.
        device_kind: `cpu` or `gpu`, for defaults of what the profile does not say.

    Raises:
        InvalidProfile: the file is no profile.
        UsageError: a flag is wrong, or the profile names code that no flag names.
    """
    profile = read(path)
    settings = training_settings(dict(flags))
    given = {name: flags.get(name) for name in WORKLOAD_FLAGS}
    measured = _settings_of(profile, given)
    config = load_config(measured, given).resolved(profile.device or device_kind)
    require_sound(config)
    if config.has_rates:
        listed = ",".join(f"{rate:g}" for rate in config.learning_rates)
        raise UsageError(
            f"--learning-rate must be one number for a training, but got {listed}; choose one"
        )
    _require_countable(config, settings)
    hardware = HardwareConfig(**(hardware_config(profile).as_dict() | settings.numbers()))
    if not hardware.is_valid:
        raise UsageError(
            f"num_envs × num_steps must be a multiple of num_minibatches, but got {hardware}; "
            "choose --num-minibatches that divide it"
        )
    return TrainingPlan(
        profile=profile,
        settings=settings,
        config=config,
        hardware=hardware,
        announcements=_announcements(profile, settings, measured, config, given),
        differences=_differences(profile, config),
    )


def differences_of_shapes(profile: Profile, environment: Mapping[str, Any]) -> list[str]:
    """Return how the environment's shapes differ from those that the profile was measured with."""
    return [
        _difference(name, profile.workload[name], environment[name])
        for name in ("obs_shape", "num_actions")
        if name in profile.workload and profile.workload[name] != environment[name]
    ]


def stored_training(folder: Path, *, resume: bool) -> dict[str, Any] | None:
    """Return the facts of the training in a folder, None where a new one may begin.

    Raises:
        Refused: there is one and it is not to be resumed, or the folder holds other things.
        UsageError: there is none to resume, or it cannot be read.
    """
    path = folder / FACTS_FILE
    if path.exists():
        if not resume:
            raise Refused(
                f"--checkpoint-dir must be new, but {folder} holds a training; add --resume to go "
                "on with it, or choose another folder"
            )
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            return {"identity": facts["identity"], **facts}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} must hold the facts of a training, but got: {error}; choose another "
                "--checkpoint-dir"
            ) from None
    if resume:
        raise UsageError(
            f"--resume must find a training in --checkpoint-dir, but {folder} holds none; leave "
            "--resume out to begin one"
        )
    others = {LOCK_FILE, LOGS_FOLDER}  # of a training that was killed before it began
    if folder.exists() and (
        not folder.is_dir() or any(path.name not in others for path in folder.iterdir())
    ):
        raise Refused(
            f"--checkpoint-dir must be new or empty, but got {folder}, which holds other files; "
            "choose another folder"
        )
    return None


def refuse_other_training(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Require a training that goes on to be asked for as it was begun.

    Raises:
        Refused: the first field that differs is named.
    """
    before = stored["identity"]
    for name in (*asked, *before):
        if before.get(name) != asked.get(name):
            raise Refused(
                f"a training must go on as it was begun, with {name} {before.get(name)!r}, but "
                f"got {asked.get(name)!r}; give the profile and the flags that it was begun "
                "with, or another --checkpoint-dir"
            )


def _settings_of(profile: Profile, given: Mapping[str, object]) -> dict[str, Any]:
    """Return the settings of the workload that a profile brings, for flags to win over.

    Its environment's parameters and bars belong to its environment alone, its scalars to our PPO.

    Raises:
        UsageError: it names no environment and no flag does, or code that no flag names.
    """
    facts = profile.workload
    for name in ("env", "trainer"):
        named = facts.get(name)
        if named is not None and is_factory(str(named)) and given.get(name) is None:
            raise UsageError(
                f"{flag(name)} must be named, since a profile alone may not run code, but got "
                f"none; add {flag(name)} {named} if you trust it"
            )
    chosen = load_config(None, given).env if given.get("env") or given.get("phase") else None
    if chosen is None and facts.get("env") is None:
        raise UsageError(
            f"--env must be given, since {profile.profile} names no environment, but got none; add "
            "--env gymnax:CartPole-v1, say"
        )
    settings: dict[str, Any] = {}
    if chosen in (None, facts.get("env")):
        settings |= {"env": facts["env"], "env_params": facts.get("env_params") or {}}
        settings |= market_settings(facts)
    if facts.get("trainer") is None and given.get("trainer") is None:
        is_known = profile.learning_rate is not None or given.get("learning_rate") is None
        settings |= ppo_settings(profile) if is_known else {}
        settings.pop("lr_anneal_env_steps", None)  # a budget: a profile never holds one
    return settings


def _require_countable(config: StudyConfig, settings: TrainingSettings) -> None:
    end = config.lr_anneal_env_steps or settings.total_steps
    if config.lr_schedule == "linear" and end > MOST_ANNEALED:
        raise UsageError(
            f"a linear schedule must end within {MOST_ANNEALED:,} env-steps, but got {end:,}; use "
            "--lr-schedule constant or fewer --total-steps"
        )


def _announcements(
    profile: Profile,
    settings: TrainingSettings,
    measured: Mapping[str, Any],
    config: StudyConfig,
    given: Mapping[str, object],
) -> tuple[str, ...]:
    lines = []
    for name, number in settings.numbers().items():
        before = getattr(profile, name)
        if number != before:
            lines.append(f"{flag(name)} {number} wins over the profile's {before}")
    for name, value in given.items():
        if value is None or name not in measured or measured[name] is None:
            continue
        now, before = getattr(config, name), measured[name]
        before = tuple(before) if isinstance(before, list) else before
        if now != before and not isinstance(now, Path):
            lines.append(f"{flag(name)} {now} wins over the profile's {before}")
    return tuple(lines)


def _differences(profile: Profile, config: StudyConfig) -> tuple[str, ...]:
    """Return how the workload differs from the profile's, as far as the profile tells it."""
    stored = {n: v for n, v in profile.workload.items() if n not in OWN_TO_TRAINING}
    here = workload_facts(config, {}, data_facts(config))
    if not stored:
        return ("the profile does not say what it was measured on",)
    then, now = flat_facts(stored), flat_facts(here)
    names = [name for name in then if name.partition(".")[0] in here]
    names += [name for name in now if name.partition(".")[0] in stored]
    found = [
        _difference(name, then.get(name), now.get(name))
        for name in dict.fromkeys(names)
        if name not in PLACES and then.get(name) != now.get(name)
    ]
    if "hash" in profile.workload and workload_hash(profile.workload) != profile.workload["hash"]:
        found.append("the profile's workload was edited since it was measured")
    if edited_rate(profile) is not None:
        found.append(
            f"the profile's learning_rate was edited: {edited_rate(profile)} was measured, "
            f"{profile.learning_rate} is there"
        )
    return tuple(found)


def _difference(name: str, measured: object, here: object) -> str:
    return f"{name} was {measured!r} when it was measured, and is {here!r} here"


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested facts by dotted names, as JSON would give them back."""
    flat: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_facts(value, f"{prefix}{name}.")
        else:
            plain = list(value) if isinstance(value, tuple) else value
            flat[f"{prefix}{name}"] = None if plain == {} else plain
    return flat
