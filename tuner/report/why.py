"""Why a profile is this config: its score in parts, the runner-up, what would have to change."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.profile import Profile, from_mapping
from storage.profile_files import read
from tuner.aggregate import ConfigSummary
from tuner.errors import ExportRefused
from tuner.finalists import contest_of
from tuner.profiles import Choice, ProfileContext, choose, document
from tuner.report.numbers import number
from tuner.report.reading import StudyReading
from tuner.report.story import expectation
from tuner.rivals import Change, changes
from tuner.space import HardwareConfig
from tuner.workload import is_of

PART_NAMES = {"gpu": "utilisation", "quality": "quality", "sps": "throughput"}
QUANTITIES = {
    "sps": ("its throughput", ",.0f", " env-steps/s"),
    "quality_score": ("its quality", ".3f", ""),
    "device_util": ("its utilisation", ".1f", " %"),
    "peak_memory_gb": ("its memory", ".3f", " GB"),
    "seconds_to_target": ("its time to the target return", ".3g", " s"),
}
"""How a `Change` is said: the quantity, its format, its unit."""


@dataclass(frozen=True, slots=True)
class Part:
    """One component of the score; `weight` is its share of the composite, unknown parts `None`."""

    name: str
    weight: float
    chosen: float | None
    runner_up: float | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A profile as a study stands now, and why it is that config.

    `origin` says whether that is what its file says. `runner_up` is `None` where there is none;
    `changes` are sentences.
    """

    name: str
    config: HardwareConfig
    expectation: str
    reason: str
    constraint_met: bool
    notes: str | None
    coincides_with: tuple[str, ...]
    origin: str
    parts: tuple[Part, ...]
    scores: tuple[float | None, float | None]
    runner_up: HardwareConfig | None
    changes: tuple[str, ...]


def explain(study: StudyReading) -> tuple[list[Explanation], str | None]:
    """Return what would be exported from a study now, explained, or why nothing would be."""
    references = study.references
    if references is None:
        return [], "the study is not calibrated yet: nothing has been measured to choose from"
    try:
        contest = contest_of(study.records, references, min_feasible=study.config.min_feasible)
    except ExportRefused as refusal:
        return [], str(refusal)
    explanations = []
    for name, choice in choose(contest).items():
        profile, origin = _as_written(study, choice)
        found = changes(choice, contest, references.scores())
        explanations.append(
            Explanation(
                name=name,
                config=choice.summary.config,
                expectation=expectation(profile),
                reason=choice.reason,
                constraint_met=choice.constraint_met,
                notes=profile.notes,
                coincides_with=choice.coincides_with,
                origin=origin,
                parts=_parts(study, choice),
                scores=(choice.summary.final_score, _score(choice.runner_up)),
                runner_up=None if choice.runner_up is None else choice.runner_up.config,
                changes=_words(choice, found),
            )
        )
    return explanations, None


def chosen_configs(explanations: Sequence[Explanation]) -> dict[str, HardwareConfig]:
    """Return the profiles' configs by name."""
    return {e.name: e.config for e in explanations}


def _as_written(study: StudyReading, choice: Choice) -> tuple[Profile, str]:
    """Return a profile's file where it says the same config, else what it would say."""
    path = study.config.profiles_folder(study.name) / f"{choice.name}.yaml"
    written = read(path) if path.exists() else None
    if written and is_of(written, choice.summary.config):
        return written, f"written as profiles/{path.name}"
    hardware = study.facts.get("hardware", {})
    bare = ProfileContext(
        hardware={},
        versions={},
        workload={},
        measured={},
        device=hardware.get("kind", "cpu"),
        learning_rate=None,
    )
    would_say = from_mapping(document(choice, context=bare), source=f"profile {choice.name}")
    if written is None:
        return would_say, "not written yet: this is how the study stands now"
    return would_say, "the file in profiles/ is of an earlier choice; write it anew: tuner export"


def _parts(study: StudyReading, choice: Choice) -> tuple[Part, ...]:
    references = study.references
    if references is None:
        return ()
    weights = references.weights.as_dict()
    total = sum(weights[name] for name in references.components)
    return tuple(
        Part(
            PART_NAMES[name],
            weights[name] / total,
            getattr(choice.summary, f"{name}_score"),
            getattr(choice.runner_up, f"{name}_score", None),
        )
        for name in references.components
    )


def _score(summary: ConfigSummary | None) -> float | None:
    return None if summary is None else summary.final_score


def _words(choice: Choice, found: Sequence[Change]) -> tuple[str, ...]:
    if choice.runner_up is None:
        return ("No other config is on the front, so that none could be chosen instead.",)
    rival = choice.runner_up.config
    if not found:
        return (f"No single measurement of {rival}, however good, would make it the choice.",)
    return tuple(_said(change, rival) for change in found)


def _said(change: Change, rival: HardwareConfig) -> str:
    what, form, unit = QUANTITIES[change.quantity]
    way = "at most" if change.needed < change.now else "at least"
    return (
        f"{rival} would be chosen if {what} were {way} {number(change.needed, form)}{unit} "
        f"(measured: {number(change.now, form)}{unit})."
    )
