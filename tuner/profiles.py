"""The three profiles: chosen from the front, explained, refused, and laid out as documents.

Apart from the score because a profile outlives its study: it names the rule that chose it, what
it was chosen over, and whether its constraint holds. Files are written by `storage`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from storage.profile import MODE, SCHEMA_VERSION
from tuner.aggregate import ConfigSummary
from tuner.errors import ExportRefused
from tuner.pareto import pareto_front
from tuner.profile_rules import PICKERS, QUALITY_FLOOR, Candidate, Rules, util_limit_of

PROFILE_NAMES = tuple(PICKERS)
TRANSFERRED_FROM = "transferred_from"
"""The fact of a study, and the key in `measured`, that says whose front it tried: `transfer`."""
LEARNING_RATES = "learning_rates"
"""The key in `measured` that lists the rates of a study which had several to choose from."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One profile's config and why it is that one.

    `reason` names the rule that decided and the runner-up, `constraint_met` whether the chosen
    config satisfies the profile's constraint (always true for `balanced`, which has none; false
    where it cannot be judged), `coincides_with` the other profiles with the same config, `notes`
    the fallbacks and reservations, `runner_up` what the same rule takes among the others (`None`
    where the chosen config is alone on the front).
    """

    name: str
    summary: ConfigSummary
    reason: str
    constraint_met: bool
    coincides_with: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    runner_up: ConfigSummary | None = None


@dataclass(frozen=True, slots=True)
class Contest:
    """What the profiles are chosen among: the front, and what the rules depend on beside it.

    `eligible` are all that may be on a front, by the measurements so far or by better luck;
    `num_measured` is the number of feasible configs, the baseline included.
    """

    front: tuple[Candidate, ...]
    eligible: tuple[Candidate, ...]
    rules: Rules
    num_measured: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileContext:
    """What a profile says beside the chosen config; the same for the three but for the rate.

    `learning_rate` is the effective one of the chosen config, after `lr_scaling`; `None` where a
    trainer of the user's has its own.
    `mem_fraction` is the share of the device that the allocator may use, `None` where there is no
    such share. `measured` holds study, date, number of trials and what else the study knows.
    """

    hardware: Mapping[str, Any]
    versions: Mapping[str, Any]
    workload: Mapping[str, Any]
    measured: Mapping[str, Any]
    device: str
    learning_rate: float | None
    lr_scaling: str = "none"
    util_source: str | None = None
    mem_fraction: float | None = None
    phase: int | None = None


def choose(contest: Contest) -> dict[str, Choice]:
    """Choose `balanced`, `max_gpu` and `max_quality`; return a choice for each, by name."""
    choices = {name: _explain(name, contest) for name in PICKERS}
    return {
        name: replace(
            choice,
            coincides_with=tuple(
                other.name
                for other in choices.values()
                if other.name != name and other.summary.config == choice.summary.config
            ),
        )
        for name, choice in choices.items()
    }


def contest_between(
    summaries: Sequence[ConfigSummary],
    *,
    components: Sequence[str],
    epsilon: float | None,
    baseline: ConfigSummary,
    util_is_gpu: bool,
    quality_tie: float | None,
    min_feasible: int = 3,
) -> Contest:
    """Return the eligible configs on the front, and the rules that choose among them.

    Args:
        summaries: the study's configs; the baseline is added where it is missing.
        components: those in use, of "gpu", "quality" and "sps"; the front is over these.
        epsilon: width of a tie of `final_score`; `None` (unknown) ties equal scores only.
        baseline: the reference of the quality floor of `max_gpu`.
        util_is_gpu: whether `device_util` is a GPU's.
        quality_tie: two standard deviations of the baseline's quality; `None` as for `epsilon`.
        min_feasible: successful configs required, the baseline included.

    Raises:
        ExportRefused: Quality was not measured, too few configs are feasible, or none of them
            may become a profile.
    """
    known = {s.config: s for s in (baseline, *summaries)}
    feasible = [s for s in known.values() if s.status == "success"]
    candidates = _candidates(feasible, components=frozenset(components), min_feasible=min_feasible)
    rules = Rules(
        components=frozenset(components),
        epsilon=epsilon or 0.0,
        quality_tie=quality_tie or 0.0,
        quality_floor=None
        if baseline.quality_score is None
        else QUALITY_FLOOR * baseline.quality_score,
        util_limit=util_limit_of(candidates, util_is_gpu=util_is_gpu),
    )
    front = front_of(candidates, rules.components)
    return Contest(tuple(front), tuple(candidates), rules, len(feasible))


def document(choice: Choice, *, context: ProfileContext) -> dict[str, Any]:
    """Lay a choice out as a profile: the keys of the profile file, in its order.

    `expected_*` and `mean_return` are means over the config's measurements. `learning_rate` is the
    effective one, never to be scaled again. There is no training budget in a profile.
    """
    summary = choice.summary
    measured = {**context.measured, "trial": summary.trial, "replicates": summary.replicates}
    if summary.env_steps is not None:
        measured["env_steps"] = summary.env_steps
    if summary.goal_score is not None:
        measured["seconds_to_target"] = summary.seconds_to_target
    return {
        "schema_version": SCHEMA_VERSION,
        "profile": choice.name,
        "mode": MODE,
        "phase": context.phase,
        **summary.config.as_dict(),
        "device": context.device,
        "expected_sps": summary.sps,
        "expected_sps_ci95": None if summary.sps_ci95 is None else list(summary.sps_ci95),
        "expected_gpu_util": summary.gpu_util if context.device == "gpu" else None,
        "expected_device_util": summary.device_util,
        "util_source": context.util_source,
        "expected_memory_gb": summary.peak_memory_gb,
        "memory_limit_gb": summary.memory_limit_gb,
        "mem_fraction": context.mem_fraction,
        "num_devices": 1,
        "quality_score": summary.quality_score,
        "mean_return": summary.mean_return,
        "entropy": summary.entropy,
        "final_score": summary.final_score,
        "learning_rate": context.learning_rate,
        "lr_scaling": context.lr_scaling,
        "constraint_met": choice.constraint_met,
        "reason": choice.reason,
        "coincides_with": list(choice.coincides_with),
        "notes": "; ".join(choice.notes) or None,
        "hardware": dict(context.hardware),
        "versions": dict(context.versions),
        "workload": dict(context.workload),
        "measured": measured,
    }


def _candidates(
    feasible: Sequence[ConfigSummary], *, components: frozenset[str], min_feasible: int
) -> list[Candidate]:
    if "quality" not in components:
        raise ExportRefused(
            "a profile must rest on measured learning quality, but got none in this study; "
            "train for more env-steps (--env-steps), scale what is learned from "
            "(--normalize-obs, --normalize-reward) or declare the best return "
            "(--env-param best_return=…)"
        )
    if len(feasible) < min_feasible:
        raise ExportRefused(
            f"profiles must be chosen from at least {min_feasible} feasible configs, "
            f"but got {len(feasible)}; `tuner resume` with a longer --budget, more --trials or a "
            "lower --min-feasible"
        )
    candidates = [c for c in map(_as_candidate, feasible) if c and _is_complete(c, components)]
    if not candidates:
        _refuse_all(feasible)
    return candidates


def _as_candidate(summary: ConfigSummary) -> Candidate | None:
    final_score, quality, sps = summary.final_score, summary.quality_score, summary.sps
    if not summary.eligible or final_score is None or quality is None or sps is None:
        return None
    return Candidate(summary, final_score, quality, sps, summary.device_util)


def _is_complete(candidate: Candidate, components: frozenset[str]) -> bool:
    return "gpu" not in components or candidate.util is not None


def _refuse_all(feasible: Sequence[ConfigSummary]) -> NoReturn:
    reasons = Counter(s.ineligible_reason or "a component was not measured" for s in feasible)
    reason, count = reasons.most_common(1)[0]
    raise ExportRefused(
        f"at least one config must be fit for a profile, but got none of {len(feasible)} "
        f"({count}: {reason.rstrip('.')}); see `tuner status`, then train for more env-steps or "
        "change the learning rate"
    )


def front_of(candidates: Sequence[Candidate], components: frozenset[str]) -> list[Candidate]:
    """Return the candidates that none dominates in the components in use, and in the goal."""
    points = [
        [
            value
            for name, value in (
                ("gpu", c.util),
                ("quality", c.quality),
                ("sps", c.sps),
                ("goal", c.summary.goal_score),
            )
            if name in components | {"goal"} and value is not None
        ]
        for c in candidates
    ]
    return [candidates[index] for index in pareto_front(points)]


def _explain(name: str, contest: Contest) -> Choice:
    """Apply a profile's rule, and again without its winner for the runner-up."""
    pick = PICKERS[name](contest.front, contest.rules)
    others = [c for c in contest.front if c is not pick.winner]
    rival = PICKERS[name](others, contest.rules).winner if others else None
    runner_up = f"runner-up {rival}" if rival else "alone on the front"
    notes = pick.notes
    if pick.winner.summary.contaminated:
        notes += ("measured only while something else disturbed the device",)
    return Choice(
        name=name,
        summary=pick.winner.summary,
        reason=f"{pick.rule}, of {contest.num_measured} measured configs; {runner_up}",
        constraint_met=pick.constraint_met,
        notes=notes,
        runner_up=None if rival is None else rival.summary,
    )
