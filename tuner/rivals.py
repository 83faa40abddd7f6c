"""What would have to change for a profile's runner-up to be chosen instead.

Apart from the rules because it asks them, as anyone could: one measured quantity of the runner-up
is moved until the rule of the profile takes it. Nothing is known here of what the rules say.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tuner.goal import time_score
from tuner.profile_rules import PICKERS, Candidate
from tuner.profiles import Choice, Contest, front_of
from tuner.score import ScoreReferences, score

FASTER = 10.0
"""Times the runner-up's throughput up to which a change is looked for."""
REACHED = 0.5
"""Score of seconds above which the target was reached on average; below it seconds tell little."""
HALVINGS = 20
"""A needed value is known to a millionth of the way."""

Changed = Callable[[Candidate, float], Candidate]


@dataclass(frozen=True, slots=True)
class Change:
    """A quantity of the runner-up with which it would be chosen, everything else as measured.

    `quantity` is `sps` (env-steps per second), `quality_score`, `device_util` (percent),
    `peak_memory_gb` or, where that is the goal, `seconds_to_target`; `now` is what was measured.
    """

    quantity: str
    now: float
    needed: float


def changes(choice: Choice, contest: Contest, references: ScoreReferences) -> list[Change]:
    """Return every single change that would make the runner-up the choice; none may do.

    Args:
        choice: of one profile.
        contest: what it was chosen among.
        references: the study's, by which a changed measurement is scored.
    """
    if choice.runner_up is None:
        return []
    rival = next(c for c in contest.front if c.summary.config == choice.runner_up.config)
    found = []
    for quantity, now, limit, changed in _quantities(rival, references):

        def wins(value: float, changed: Changed = changed) -> bool:
            return _is_chosen(choice.name, contest, rival, changed(rival, value))

        needed = _least(wins, now, limit)
        if needed is not None:
            found.append(Change(quantity, now, needed))
    return found


def _quantities(
    rival: Candidate, references: ScoreReferences
) -> list[tuple[str, float, float, Changed]]:
    """Return name, measured value, limit and how it is changed, of what the rules compare."""

    def faster(c: Candidate, sps: float) -> Candidate:
        interval = c.summary.sps_ci95
        moved = None if interval is None else (interval[0] * sps / c.sps, interval[1] * sps / c.sps)
        summary = replace(c.summary, sps=sps, sps_ci95=moved)
        return replace(c, sps=sps, summary=summary, final_score=_rescored(c, references, sps=sps))

    def better(c: Candidate, quality: float) -> Candidate:
        final_score = _rescored(c, references, quality=quality)
        return replace(c, quality=quality, final_score=final_score)

    def busier(c: Candidate, util: float) -> Candidate:
        return replace(c, util=util, final_score=_rescored(c, references, util=util))

    def lighter(c: Candidate, memory_gb: float) -> Candidate:
        return replace(c, summary=replace(c.summary, peak_memory_gb=memory_gb))

    def sooner(c: Candidate, seconds: float) -> Candidate:
        measured_s = c.summary.seconds_to_target or seconds
        goal_score = _sooner(c.objective, measured_s, seconds)
        return replace(
            c, summary=replace(c.summary, seconds_to_target=seconds, goal_score=goal_score)
        )

    quantities: list[tuple[str, float, float, Changed]] = [
        ("sps", rival.sps, FASTER * rival.sps, faster),
        ("quality_score", rival.quality, 1.0, better),
    ]
    if rival.util is not None:
        quantities.append(("device_util", rival.util, 100.0, busier))
    if rival.summary.peak_memory_gb is not None:
        quantities.append(("peak_memory_gb", rival.summary.peak_memory_gb, 0.0, lighter))
    seconds = rival.summary.seconds_to_target
    if rival.summary.goal_score is not None and seconds and rival.objective > REACHED:
        quantities.append(("seconds_to_target", seconds, 0.0, sooner))
    return quantities


def _sooner(time_scored: float, seconds: float, changed_s: float) -> float:
    """Return the `tuner.goal.time_score` of other seconds, from that of `seconds`.

    It is ½ + ½ · r / (r + seconds), which tells the reference r.
    """
    share = 2 * time_scored - 1
    reference_s = seconds * share / (1 - share)
    return time_score(changed_s, reference_s=reference_s, best_return=None, start=0.0, target=1.0)


def _rescored(
    candidate: Candidate,
    references: ScoreReferences,
    *,
    util: float | None = None,
    quality: float | None = None,
    sps: float | None = None,
) -> float:
    """Return the candidate's composite, moved by what its changed quantity is worth."""
    before = score(
        references,
        device_util=candidate.util,
        quality_score=candidate.quality,
        sps=candidate.sps,
    ).final_score
    after = score(
        references,
        device_util=candidate.util if util is None else util,
        quality_score=candidate.quality if quality is None else quality,
        sps=candidate.sps if sps is None else sps,
    ).final_score
    if before is None or after is None:
        return candidate.final_score
    return candidate.final_score + after - before


def _is_chosen(name: str, contest: Contest, rival: Candidate, changed: Candidate) -> bool:
    # Nothing but the front is looked at: who gets better dominates no fewer than before.
    candidates = [changed if c is rival else c for c in contest.front]
    front = front_of(candidates, contest.rules.components)
    return PICKERS[name](front, contest.rules).winner is changed


def _least(wins: Callable[[float], bool], now: float, limit: float) -> float | None:
    """Return the value nearest to `now`, on the way to `limit`, that wins; None if none does."""
    if now == limit or not wins(limit):
        return None
    losing, winning = now, limit
    for _ in range(HALVINGS):
        middle = (losing + winning) / 2
        if wins(middle):
            winning = middle
        else:
            losing = middle
    return winning
