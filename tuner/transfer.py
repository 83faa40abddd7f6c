"""The front of a study, measured anew on this machine: a new study of these configs alone.

Apart from `start` because nothing is chosen here: workload, budget, baseline and configs are a
profile's, and so one small file is all that must travel. Speed, utilisation and memory are measured
here. What the configs learned is kept where the profile holds it, for it is the algorithm's and not
the device's, and everything that is kept says so.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

from pydantic import ValidationError

from storage.profile import Profile
from tuner.address import complete
from tuner.bench import Say
from tuner.comparability import figure
from tuner.config import GROUP_MARK, StudyConfig
from tuner.errors import UsageError
from tuner.fingerprint import source_hash
from tuner.goal import TIME_TO_RETURN
from tuner.kept_learning import (
    FACT,
    FEWEST_TRAININGS,
    MEASURED_KEY,
    ORIGIN,
    SOURCE,
    KeptLearning,
)
from tuner.observer import NOBODY, Observer
from tuner.profile_sources import Source
from tuner.profiles import TRANSFERRED_FROM
from tuner.references import stored_references
from tuner.run import Ending
from tuner.settings import load_config
from tuner.space import DIMENSIONS, HardwareConfig, in_order
from tuner.study import start
from tuner.terminal import printable
from tuner.workload import config_of, hardware_config, is_of, measured_rate

SUFFIX = "-transfer"
MOST_CHARACTERS = 100


def transfer_config(profile: Profile, flags: Mapping[str, object]) -> StudyConfig:
    """Return the settings of a study that measures the front of a profile's study.

    The front, the baseline, the budget and the weights are in the profile's `measured`; one that
    was written by hand has its own config alone, and the defaults of this machine.

    Args:
        profile: of any machine.
        flags: settings of the new study that change neither workload nor space: a baseline, when
            to stop, how and where to measure; `env`, `trainer` and `data` as in `config_of`.

    Raises:
        UsageError: the profile does not say enough, or code that no flag names.
        Refused: the workload or its learning rate was edited since it was measured.
    """
    config = config_of(profile, {**flags, "baseline": None})
    given = {name for name, value in flags.items() if value not in (None, [], ())}
    measured = profile.measured
    recorded = _recorded(measured, "baseline", "baseline")
    wanted = load_config(None, {"baseline": flags.get("baseline")}).baseline
    baseline = recorded if wanted is None else wanted
    front = set(_recorded(measured, "front", "only") or ())
    if not any(is_of(profile, config) for config in front):
        rate = measured_rate(profile) if any(c.learning_rate for c in front) else None
        front.add(replace(hardware_config(profile), learning_rate=rate))
    has_rates = any(c.learning_rate is not None for c in front)
    if wanted is not None and wanted.learning_rate is not None and not has_rates:
        raise UsageError(
            f"--baseline must be four numbers, as the study of {profile.profile} had one learning "
            f"rate, but got {wanted}; leave its rate out"
        )
    changes: dict[str, Any] = {
        **dict.fromkeys(DIMENSIONS),  # those of the front
        "only": in_order(front),
        "baseline": baseline,
    }
    if profile.learning_rate is not None and profile.lr_scaling == "sqrt":
        changes["lr_scaling"] = "sqrt"
        changes["learning_rate"] = _rate_at_baseline(profile, baseline, recorded)
    if has_rates:
        changes |= _with_rates(profile, changes, front, recorded)
    if "env_steps" not in given:
        changes["env_steps"] = _budget(measured)
    if "min_feasible" not in given:
        configs = front if baseline is None else front | {baseline}
        changes["min_feasible"] = min(config.min_feasible, len(configs))
    if "min_trials" not in given:
        changes["min_trials"] = max(config.min_trials, len(front) + 1)  # patience cuts no front
    if "weights" not in given:
        changes["weights"] = _recorded(measured, "weights", "weights") or config.weights
    return config.model_copy(update=changes)


def transfer(
    source: Source,
    name: str | None,
    flags: Mapping[str, object],
    *,
    learning: Literal["kept", "measured"] | None = None,
    say: Say,
    observer: Observer = NOBODY,
) -> tuple[str, StudyConfig, Ending]:
    """Measure the front of a profile's study on this machine, as a study, to its end.

    Args:
        source: of any machine.
        name: of the new study, None for that of the old one with `SUFFIX`.
        flags: as for `transfer_config`.
        learning: whether what the configs learned is kept or measured again; None keeps it where
            that is possible, and says why where it is not.
        say: tells the user a line.
        observer: looks on.

    Returns:
        The study's name, its settings and how it ended.

    Raises:
        TunerError: see `transfer_config` and `tuner.errors`.
        StorageError: see `storage.errors`; among them `StudyExists`.
    """
    profile = source.profile
    config = transfer_config(profile, flags)
    config = config.model_copy(update={"storage": complete(config.storage)})
    study, hardware = _told(profile.measured, "study"), _told(profile.hardware, "name")
    study, hardware = study or profile.profile, hardware or "hardware not told"
    origin = {
        "study": study,
        "profile": profile.profile,
        "hardware": hardware,
        "date": _told(profile.measured, "date"),
    }
    kept = keep(profile, config, origin) if learning != "measured" else "--learning measured"
    if isinstance(kept, str) and learning == "kept":
        raise UsageError(f"--learning kept must be possible, but it is not: {kept}; leave it out")
    origin["learning"] = "measured" if isinstance(kept, str) else "kept"
    chosen = name or f"{study.partition(GROUP_MARK)[0]}{SUFFIX}"
    say(
        f"{chosen}: {len(config.only or ())} configs of the front of {study}, measured on "
        f"{hardware}; speed and memory are measured here, "
        + (f"learning too: {kept}" if isinstance(kept, str) else "learning is kept from there")
    )
    facts: dict[str, Any] = {TRANSFERRED_FROM: origin}
    if not isinstance(kept, str):
        facts[FACT] = kept.model_dump(mode="json")
    return chosen, config, start(config, chosen, say=say, facts=facts, observer=observer)


def keep(
    profile: Profile, config: StudyConfig, origin: Mapping[str, str | None]
) -> KeptLearning | str:
    """Return what a new study keeps of what its configs learned, or why it keeps nothing.

    Args:
        profile: of any machine.
        config: the settings of the new study.
        origin: `study` and `hardware` of the profile, as they are told to people.

    Raises:
        UsageError: the profile's learning is not as an export writes it.
    """
    measured = profile.measured
    references, recorded = stored_references(measured), _recorded(measured, "baseline", "baseline")
    if MEASURED_KEY not in measured or references is None or recorded is None:
        return "the profile does not hold what its study's configs learned"
    if config.goal == TIME_TO_RETURN or "seconds_to_target" in measured:
        return f"under --goal {TIME_TO_RETURN} the training itself is timed"
    if config.env_steps is None or config.env_steps != _budget(measured):
        return "--env-steps is not that of the profile's study"
    if measured.get(SOURCE) != source_hash():
        return "the profile's study ran other code of tuner's"
    if config.baseline is None or config.baseline.shape != recorded.shape:
        return f"the baseline is not that of the profile's study, {recorded}"
    environment = {k: v for k, v in profile.workload.items() if k in ("obs_shape", "num_actions")}
    facts = {
        "origin": _told(measured, ORIGIN) or "{study}, measured on {hardware}".format(**origin),
        "env_steps": config.env_steps,
        "references": asdict(references),
        "environment": environment,
        "configs": measured[MEASURED_KEY],
    }
    try:
        kept = KeptLearning.model_validate(facts)
    except ValidationError as error:
        raise UsageError(
            f"a profile's measured.{MEASURED_KEY} must be as `tuner export` writes it, but got "
            f"{error.errors()[0]['msg']}; export it anew or add --learning measured"
        ) from None
    for needed in (*(config.only or ()), config.baseline):
        learning = kept.learning_of(needed)
        if learning is None:
            return f"the profile does not hold what {needed} learned"
        if learning.curve.env_steps[-1] < kept.env_steps:
            return f"{needed} was trained for less than the others"
    trainings = kept.learning_of(config.baseline)
    if trainings is None or len(trainings.quality_score) < FEWEST_TRAININGS:
        return (
            f"the baseline was trained less than {FEWEST_TRAININGS} times, so that ties are unknown"
        )
    return kept


def _recorded(measured: Mapping[str, Any], key: str, setting: str) -> Any:
    """Return what a profile's study recorded for a setting, None where it did not.

    Raises:
        UsageError: it is no value of that setting.
    """
    value = measured.get(key)
    if value is None:
        return None
    try:
        return getattr(load_config({setting: value}, {}), setting)
    except UsageError:
        raise UsageError(
            f"a profile's measured.{key} must be as `tuner export` writes it, but got "
            f"{reprlib.repr(value)}; export it anew"
        ) from None


def _budget(measured: Mapping[str, Any]) -> int | None:
    """Return the env-steps of every trial, None for the default of this machine's space."""
    for name in ("budget_env_steps", "env_steps"):
        steps = figure(measured, name)
        if steps is not None and steps >= 1:
            return int(steps)
    return None


def _rate_at_baseline(
    profile: Profile, baseline: HardwareConfig | None, recorded: HardwareConfig | None
) -> float:
    """Return the learning rate at a baseline that gives the profile's config its own by √.

    Raises:
        UsageError: there is no baseline to scale from.
    """
    if baseline is None or profile.learning_rate is None:
        raise UsageError(
            "--baseline must be given where the learning rate is scaled from it, but this profile "
            "does not name it; add --baseline 2048,128,8,4, say"
        )
    scalars = profile.workload.get("ppo") or {}
    is_recorded = recorded is not None and baseline.shape == recorded.shape
    if is_recorded and isinstance(rate := scalars.get("learning_rate"), float):
        return rate
    ratio = baseline.minibatch_size / hardware_config(profile).minibatch_size
    return profile.learning_rate * math.sqrt(ratio)


def _with_rates(
    profile: Profile,
    changes: Mapping[str, Any],
    front: set[HardwareConfig],
    recorded: HardwareConfig | None,
) -> dict[str, Any]:
    """Return the settings of a front whose configs have learning rates of their own.

    Under √ they are all scaled as the profile's is: they are those at the baseline.
    """
    own = measured_rate(profile) or 1.0
    factor = changes.get("learning_rate", own) / own

    def moved(config: HardwareConfig) -> HardwareConfig:
        return replace(config, learning_rate=(config.learning_rate or own) * factor)

    configs = in_order(map(moved, front))
    first = [] if recorded is None else [moved(recorded).learning_rate]
    rates = tuple(dict.fromkeys([*first, *(config.learning_rate for config in configs)]))
    baseline = changes["baseline"]
    if len(rates) > 1:
        baseline = moved(baseline) if baseline == recorded and baseline is not None else baseline
        return {"learning_rate": rates, "only": configs, "baseline": baseline}
    return {
        "learning_rate": rates[0],
        "only": tuple(config.shape for config in configs),
        "baseline": baseline and baseline.shape,
    }


def _told(facts: Mapping[str, Any], name: str) -> str | None:
    """Return a text of a profile, which anyone may have written, fit to be shown."""
    value = facts.get(name)
    is_text = isinstance(value, str) and bool(value.strip())
    return printable(" ".join(str(value).split()))[:MOST_CHARACTERS] if is_text else None
