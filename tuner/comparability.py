"""In what two profiles differ beside their numbers, and what that leaves to compare.

Apart from the comparison because it is about facts and not about figures: a speed compares with
another of the same environment and network, a quality with another of the same workload, trained
for as long and judged by the same references.
"""

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from storage.profile import Profile
from tuner.config import HYPERPARAMS, StudyConfig
from tuner.hardware import IDENTITY
from tuner.profile_sources import Source
from tuner.profiles import LEARNING_RATES
from tuner.quality import QualityReferences
from tuner.references import stored_references
from tuner.training_plan import PLACES, flat_facts
from tuner.workload import FORMER, OPTIONAL, edited_rate, hardware_config, workload_hash

LEARNING_ONLY = ("ppo", "lr_schedule", "lr_anneal_env_steps")
"""Facts of a workload that decide what is learned and not how fast it runs."""
MEMORY_SLACK_GB = 1.0
"""A host's limit may move a little; cards of one name differ by gigabytes."""
UNTOLD = "not told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """In what a profile differs from another, one `name: theirs → its own` for each fact.

    `judging` is what quality rests on beside the workload: the budget and the references.
    `speed_reason` and `quality_reason` say why these cannot be compared, None where they can.
    """

    hardware: tuple[str, ...] = ()
    workload: tuple[str, ...] = ()
    judging: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    speed_reason: str | None = None
    quality_reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


def differences(first: Source, other: Source) -> Differences:
    """Return in what `other` differs from `first`, and what cannot be compared for it."""
    a, b = first.profile, other.profile
    workload = _changes(_workload(a), _workload(b))
    rates = a.measured.get(LEARNING_RATES)
    if (
        is_same_study(first, other)
        and rates is not None
        and rates == b.measured.get(LEARNING_RATES)
    ):
        workload.pop("ppo.learning_rate", None)  # it was searched for, as the config was
    judging = _judging(first, other)
    speed = {name: words for name, words in workload.items() if _decides_speed(name)}
    unknown = _first_doubt(_doubt, first, other)
    return Differences(
        hardware=tuple(_hardware(a, b)),
        workload=tuple(workload.values()),
        judging=judging,
        versions=tuple(_changes(_told(a.versions), _told(b.versions)).values()),
        speed_reason=unknown or ("what is computed differs" if speed else None),
        quality_reason=unknown
        or ("the workload differs" if workload else None)
        or _first_doubt(_doubt_of_rate, first, other)
        or ("it was judged otherwise" if judging else None),
    )


def is_same_study(first: Source, other: Source) -> bool:
    """Whether both were exported by one study, and so were judged alike."""
    a, b = (source.profile.measured.get("study") for source in (first, other))
    return first.folder == other.folder and a is not None and a == b


def figure(facts: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a profile's free facts, which anyone may have written; else None."""
    value = facts.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None  # type: ignore[arg-type]


def _first_doubt(doubt: Callable[[Profile], str | None], *sources: Source) -> str | None:
    return next((f"{s.name} {why}" for s in sources if (why := doubt(s.profile))), None)


def _doubt(profile: Profile) -> str | None:
    """Return why a profile's figures may be of another workload than it says."""
    facts = profile.workload
    if "env" not in facts:
        return "does not say what it was measured on"
    if "hash" in facts and workload_hash(facts) != facts["hash"]:
        return "had its workload edited since it was measured"
    return None


def _doubt_of_rate(profile: Profile) -> str | None:
    """Return why a profile's quality may be another learning rate's."""
    is_ppo = isinstance(profile.workload.get("ppo"), Mapping)
    if is_ppo and edited_rate(profile) is not None:
        return "had its learning rate edited since it was measured"
    return None


def _workload(profile: Profile) -> dict[str, Any]:
    """Return the facts of a workload by dotted name, with the defaults that a profile may omit."""
    facts = {name: value for name, value in profile.workload.items() if name != "hash"}
    if not facts:
        return {}
    if facts.get("trainer") is None:
        facts = {name: _default(name) for name in OPTIONAL} | facts
        if isinstance(facts.get("ppo"), Mapping):
            former = {name: _default(name) for name in HYPERPARAMS} | FORMER
            facts["ppo"] = former | dict(facts["ppo"])
    flat = flat_facts(facts)
    return {name: value for name, value in flat.items() if name not in PLACES and value is not None}


def _default(name: str) -> Any:
    return StudyConfig.model_fields[name].default


def _decides_speed(name: str) -> bool:
    return name.partition(".")[0] not in LEARNING_ONLY


def _hardware(a: Profile, b: Profile) -> list[str]:
    then = {name: a.hardware.get(name) for name in IDENTITY}
    here = {name: b.hardware.get(name) for name in IDENTITY}
    found = list(_changes(then, here).values())
    sizes = figure(a.hardware, "memory_gb"), figure(b.hardware, "memory_gb")
    if "gpu" in (a.device, b.device) and None not in sizes:
        before, after = (size or 0.0 for size in sizes)
        if abs(before - after) > MEMORY_SLACK_GB:
            found.append(f"memory: {before:.1f} GB → {after:.1f} GB")
    return found


def _judging(first: Source, other: Source) -> tuple[str, ...]:
    """Return how quality was judged otherwise; in one study it never is."""
    if is_same_study(first, other):
        return ()
    a, b = first.profile, other.profile
    found = []
    budgets = _budget(a), _budget(b)
    # Training ends at an update's end: without the study's own budget, the last one is left open.
    slack = 0.0
    if any(figure(p.measured, "budget_env_steps") is None for p in (a, b)):
        slack = max(hardware_config(p).batch_size for p in (a, b))
    if None in budgets or abs((budgets[0] or 0.0) - (budgets[1] or 0.0)) > slack:
        shown = [UNTOLD if budget is None else f"{budget:,.0f}" for budget in budgets]
        found.append(f"env-steps of training: {shown[0]} → {shown[1]}")
    scales = [stored_references(p.measured) for p in (a, b)]
    known = [s for s in scales if s is not None and None not in (s.random_return, s.random_se)]
    if len(known) < 2:
        found.append("what its 0 and 1 are is not told by both profiles")
    elif not _is_same_scale(*known):
        found.append("another 0 and 1: returns of its own random policy, baseline or optimum")
    return tuple(found)


def _budget(profile: Profile) -> float | None:
    budget = figure(profile.measured, "budget_env_steps")
    return figure(profile.measured, "env_steps") if budget is None else budget


def _is_same_scale(a: QualityReferences, b: QualityReferences) -> bool:
    """Whether two scales are one, but for how well the random policy's return is known."""
    if a.num_evaluations != b.num_evaluations:
        return False
    if a.best_return is None or b.best_return is None:
        return a == b  # the top of it is made from the study's own baseline
    near = 2 * math.hypot(a.random_se, b.random_se)
    return a.best_return == b.best_return and abs(a.random_return - b.random_return) <= near


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    """Return `name: a → b` for every fact that is not the same in both."""
    names = dict.fromkeys([*a, *b])
    return {
        name: f"{name}: {_shown(a.get(name))} → {_shown(b.get(name))}"
        for name in names
        if a.get(name) != b.get(name)
    }


def _shown(value: Any) -> str:
    if value is None:
        return UNTOLD
    return value if isinstance(value, str) and len(value) <= 60 else reprlib.repr(value)
