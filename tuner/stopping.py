"""When a search ends: one question, asked before every trial, answered from the table alone.

From the table and not from a counter in memory, so that a resumed study stops where an
uninterrupted one would have.
"""

import statistics
from collections.abc import Sequence

from storage.records import TrialRecord
from tuner.aggregate import NUMBERS, hardware_of, objectives
from tuner.space import SearchSpace

NOT_COUNTED = frozenset({"predicted_oom", "interrupted"})
"""Trials that cost nothing or say nothing: refused before running, or stopped."""

FINALISTS = 3
"""Most configs that are chosen at once: one for each profile."""
FIRST_GUESS_S = 15.0
"""Length of a trial before any has been timed."""


def counted(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that `--trials` and patience count: one row each, no replicates.

    Of a config that crashed twice only the second counts: the first was to be run again.
    """
    trials, crashed = [], set()
    for record in records:
        if record.replicate > 0 or record.status in NOT_COUNTED:
            continue
        if record.status == "crashed" and (config := hardware_of(record)) not in crashed:
            crashed.add(config)
            continue
        trials.append(record)
    return trials


def gain_is_spent(records: Sequence[TrialRecord], *, patience: int, min_gain: float) -> bool:
    """Whether none of the last `patience` counted trials raised the best by over `min_gain`.

    A trial's score is the mean over those of its config's replicates that count. One without a
    score, or whose learning is not acceptable, raises nothing.
    """
    trials = counted(records)
    if len(trials) <= patience:
        return False
    means = objectives(records)
    scores = [means[NUMBERS(trial)] for trial in trials]
    before = [score for score in scores[:-patience] if score is not None]
    recent = [score for score in scores[-patience:] if score is not None]
    if not before:
        return False
    return not recent or max(recent) <= max(before) + min_gain


def little_is_left(
    records: Sequence[TrialRecord], space: SearchSpace, *, until_regret: float
) -> str | None:
    """Return in words that less than a share of the best score is still to be had, else None."""
    from tuner.outlook import outlook, percent  # scipy: not for who only counts trials

    believed = outlook(records, space)
    if believed is None or believed.share >= until_regret:
        return None
    return (
        f"less than {100 * until_regret:g} % of the score is expected to be left to gain "
        f"({percent(believed.share)})"
    )


def expected_trial_s(records: Sequence[TrialRecord]) -> float:
    """Return how long a trial takes: the upper quartile of those that ran to their end."""
    return _upper_quartile([duration_s for _, duration_s in _timed(records)])


def expected_again_s(records: Sequence[TrialRecord]) -> float:
    """Return how long it takes to measure a finalist once more, whose program is in the cache.

    As `expected_trial_s`, with the time that repeats took to compile in place of each trial's own,
    and that of a probe. Where another machine compiled the program, it takes longer by that.
    """
    timed = _timed(records)
    warm_s = _median(
        [r.phases["compile"] for r, _ in timed if r.replicate and "compile" in r.phases]
    )
    probe_s = _median([r.phases["probe"] for r, _ in timed if "probe" in r.phases]) or 0.0
    if warm_s is None:
        return expected_trial_s(records)
    return _upper_quartile(
        [
            duration_s
            - (r.phases.get("compile", warm_s) - warm_s)
            - (r.phases.get("probe", 0.0) - probe_s)
            for r, duration_s in timed
        ]
    )


def finalists_reserve_s(records: Sequence[TrialRecord], finalists: int) -> float:
    """Return the time to keep for measuring so many profiles' configs once more."""
    return finalists * expected_again_s(records)


def _timed(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, float]]:
    return [(r, r.duration) for r in records if r.status == "success" and r.duration is not None]


def _upper_quartile(durations: Sequence[float]) -> float:
    if len(durations) < 2:
        return durations[0] if durations else FIRST_GUESS_S
    return statistics.quantiles(durations, n=4)[2]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def reason_to_stop(
    records: Sequence[TrialRecord],
    *,
    trials: int | None,
    patience: int,
    min_gain: float,
    min_trials: int,
    untried: int,
    time_left_s: float | None,
    running: int = 0,
    finalists: int = FINALISTS,
    until_regret: float | None = None,
    space: SearchSpace | None = None,
) -> str | None:
    """Return why the search ends now, in words for the user, or None if it goes on.

    Args:
        records: all of the study's measurements, by trial and replicate.
        trials: most trials that count, None for no limit.
        patience: see `gain_is_spent`.
        min_gain: see `gain_is_spent`.
        min_trials: counted trials before which neither patience nor `until_regret` ends a study.
        untried: configs of the space that have not been tried.
        time_left_s: of the budget, None without one.
        running: trials that other workers are measuring.
        finalists: configs that are expected to be measured once more after the next trial.
        until_regret: share of the score below which what is left to gain ends a study, see
            `tuner.outlook`; None for no such end.
        space: the study's, which `until_regret` needs.
    """
    number = len(counted(records))
    if trials is not None and number + running >= trials:
        return f"--trials {trials} reached"
    if untried == 0:
        return f"every config of the space has been tried ({number} trials)"
    if number >= min_trials and gain_is_spent(records, patience=patience, min_gain=min_gain):
        return f"no gain above {min_gain:.3g} in the last {patience} trials"
    if until_regret is not None and space is not None and number >= min_trials:
        left = little_is_left(records, space, until_regret=until_regret)
        if left is not None:
            return left
    needed_s = finalists_reserve_s(records, finalists) + expected_trial_s(records)
    if time_left_s is not None and time_left_s < needed_s:
        return "the budget is spent, but for measuring the profiles once more"
    return None
