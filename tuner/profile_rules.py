"""The rules by which the profiles choose: what is compared, when it is a tie, who wins it.

Apart from `tuner.profiles` because each rule is a function of a few candidates that can be read,
and tested, without a study. Each works on any set of candidates, so that a runner-up is the
winner of the same rule among the others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.aggregate import ConfigSummary

QUALITY_FLOOR = 0.8
"""`max_gpu` keeps this share of the baseline's quality."""
UTIL_TIE = 2.0
MEMORY_TIE = 0.01
"""Share of what the memory gate allows by which memory may differ and be as little."""
BUSY_UTIL = 80.0
BUSY_CONFIGS = 3
BUSY_SHARE = 0.8
"""`max_quality` keeps this share of the highest utilisation where fewer configs are busy."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A config that may become a profile, with what the rules compare."""

    summary: ConfigSummary
    final_score: float
    quality: float
    sps: float
    util: float | None

    @property
    def objective(self) -> float:
        """What `balanced` maximises; the composite may be another than the summary's."""
        goal_score = self.summary.goal_score
        return self.final_score if goal_score is None else goal_score

    def __str__(self) -> str:
        util = "" if self.util is None else f", utilisation {self.util:.1f} %"
        seconds = self.summary.seconds_to_target
        is_timed = self.summary.goal_score is not None and seconds is not None
        time = f", {seconds:.3g} s to the target" if is_timed else ""
        return (
            f"{self.summary.config} (score {self.final_score:.3f}, quality {self.quality:.3f}, "
            f"{self.sps:,.0f} steps/s{util}{time})"
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """What the choice depends on beside the candidates."""

    components: frozenset[str]
    epsilon: float
    quality_tie: float
    quality_floor: float | None
    util_limit: float | None


@dataclass(frozen=True, slots=True)
class Pick:
    """A rule's winner among candidates and the words for how it won."""

    winner: Candidate
    rule: str
    constraint_met: bool = True
    notes: tuple[str, ...] = ()


def util_limit_of(candidates: Sequence[Candidate], *, util_is_gpu: bool) -> float | None:
    """Return the utilisation, in percent, that `max_quality` must exceed.

    Busy and highest are judged over all candidates, so that one on the front always exceeds it.
    """
    utils = [c.util for c in candidates if c.util is not None]
    if not utils:
        return None
    if util_is_gpu and sum(util > BUSY_UTIL for util in utils) >= BUSY_CONFIGS:
        return BUSY_UTIL
    return BUSY_SHARE * max(utils)


def contenders(candidates: Sequence[Candidate], rules: Rules) -> list[Candidate]:
    """Return those whose true score may be the highest, the one with the best score first.

    ε is two standard deviations of one measurement, so that two means over n and m measurements
    can be told apart where they differ by more than ε · √(1/n + 1/m).
    """
    best = max(candidates, key=lambda c: (c.objective, -c.summary.trial))

    def may_be_better(other: Candidate) -> bool:
        share = math.sqrt(1 / other.summary.replicates + 1 / best.summary.replicates)
        return best.objective - other.objective <= rules.epsilon * share

    return sorted(filter(may_be_better, candidates), key=lambda c: (-c.objective, c.summary.trial))


def pick_balanced(candidates: Sequence[Candidate], rules: Rules) -> Pick:
    """Return the best composite; among those within ε the fastest, or the lightest as fast.

    Configs within ε that are slower than the fastest of them beyond doubt (intervals apart) are
    out; the rest cannot be told apart, and the least memory wins; of those that take as little, the
    best score. Under `--goal time-to-return` it is the shortest time to the target, and of those
    within ε the least memory.
    """
    best = max(candidate.objective for candidate in candidates)
    within = [c for c in candidates if c.objective >= best - rules.epsilon]
    if within[0].summary.goal_score is not None:
        return _pick_soonest(within, rules)
    fastest = max(within, key=lambda c: (c.sps, -c.summary.trial))
    tied = [c for c in within if _may_be_as_fast(c, fastest)]
    light = _lightest(tied)
    winner = max(light, key=lambda c: (c.final_score, -c.summary.trial))
    if len(within) == 1:
        rule = "best composite score"
    elif len(tied) == 1:
        rule = f"fastest of {len(within)} configs within ε = {rules.epsilon:.3f} of the best score"
    else:
        is_lighter = len(light) < len(tied)
        is_known = math.isfinite(_memory(winner, tied))
        rule = (
            f"{'least memory' if is_lighter else 'best score'} of {len(tied)} configs within ε = "
            f"{rules.epsilon:.3f} of the best score whose throughput"
            f"{' and memory' if is_known and not is_lighter else ''} cannot be told apart"
        )
    return Pick(winner, rule)


def _pick_soonest(within: Sequence[Candidate], rules: Rules) -> Pick:
    """Return the lightest of the configs whose time to the target return cannot be told apart."""
    tied = [c for c in within if c.summary.seconds_to_target is not None] or within
    light = _lightest(tied)
    winner = max(light, key=lambda c: (c.objective, -c.summary.trial))
    is_reached = winner.summary.seconds_to_target is not None
    rule = "shortest time to" if is_reached else "best progress towards"
    rule += " the target return"
    if len(light) < len(tied):
        rule = f"least memory of {len(tied)} configs within ε = {rules.epsilon:.3f} of the {rule}"
    notes = () if is_reached else ("fallback: no config reached the target return in time",)
    return Pick(winner, rule, is_reached, notes)


def pick_max_gpu(candidates: Sequence[Candidate], rules: Rules) -> Pick:
    """Return the highest utilisation with enough quality; within two points the fastest."""
    if "gpu" not in rules.components:
        return _without_utilisation(pick_balanced(candidates, rules), "chosen as balanced")
    floor = rules.quality_floor
    pool = [c for c in candidates if floor is not None and c.quality >= floor]
    busiest = max((c for c in pool or candidates), key=_util)
    tied = [c for c in pool or candidates if _util(c) >= _util(busiest) - UTIL_TIE]
    winner = max(tied, key=lambda c: (c.sps, -_memory(c, tied), -c.summary.trial))
    rule = (
        "highest utilisation"
        if len(tied) == 1
        else f"fastest of {len(tied)} configs within two points of the highest utilisation"
    )
    constraint = f"quality of at least {QUALITY_FLOOR:g} × the baseline's"
    if pool:
        return Pick(winner, f"{rule} with {constraint}")
    why = "the baseline's is unknown" if floor is None else f"none reaches {floor:.3f}"
    return Pick(
        winner,
        f"{rule} whatever the quality",
        False,
        (f"fallback: no config has {constraint}, {why}",),
    )


def pick_max_quality(candidates: Sequence[Candidate], rules: Rules) -> Pick:
    """Return the best quality among busy configs; ties as `balanced`."""
    if "gpu" not in rules.components or rules.util_limit is None:
        return _without_utilisation(_best_quality(candidates, rules), "its limit is not applied")
    constraint = f"utilisation above {rules.util_limit:.1f} %"
    pool = [c for c in candidates if _util(c) > rules.util_limit]
    pick = _best_quality(pool or candidates, rules)
    if pool:
        return replace(pick, rule=f"{pick.rule} with {constraint}")
    return replace(pick, constraint_met=False, notes=(f"fallback: no config has {constraint}",))


def _best_quality(candidates: Sequence[Candidate], rules: Rules) -> Pick:
    best = max(candidate.quality for candidate in candidates)
    tied = [c for c in candidates if c.quality >= best - rules.quality_tie]
    if len(tied) == 1:
        return Pick(tied[0], "best quality")
    pick = pick_balanced(tied, rules)
    tie = f"among {len(tied)} configs within {rules.quality_tie:.3f} of the best quality"
    return replace(pick, rule=f"{pick.rule} {tie}", constraint_met=True, notes=())


def _without_utilisation(pick: Pick, consequence: str) -> Pick:
    note = f"fallback: utilisation is not in use in this study, {consequence}"
    return replace(pick, constraint_met=False, notes=(note,))


def _util(candidate: Candidate) -> float:
    return -math.inf if candidate.util is None else candidate.util


def _may_be_as_fast(one: Candidate, fastest: Candidate) -> bool:
    """Return whether the intervals overlap; without both nothing says that one is slower."""
    interval, other = one.summary.sps_ci95, fastest.summary.sps_ci95
    if one is fastest or interval is None or other is None:
        return True
    return interval[0] <= other[1] and other[0] <= interval[1]


def _lightest(tied: Sequence[Candidate]) -> list[Candidate]:
    """Return those that take the least memory, give or take what does not matter on the device."""
    memory = [_memory(candidate, tied) for candidate in tied]
    limits = [limit for c in tied if (limit := c.summary.memory_limit_gb) is not None]
    most = min(memory) + MEMORY_TIE * max(limits, default=0.0)
    return [candidate for candidate, gb in zip(tied, memory, strict=True) if gb <= most]


def _memory(candidate: Candidate, rivals: Sequence[Candidate]) -> float:
    """Return memory in GB as all rivals know it: measured, else predicted, else equal for all."""
    for name in ("peak_memory_gb", "predicted_memory_gb"):
        if all(getattr(rival.summary, name) is not None for rival in rivals):
            return float(getattr(candidate.summary, name))
    return math.inf


PICKERS = {
    "balanced": pick_balanced,
    "max_gpu": pick_max_gpu,
    "max_quality": pick_max_quality,
}
