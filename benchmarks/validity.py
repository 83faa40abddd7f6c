"""What a short trial's scores are worth on one table, by how soon configs truly reach a return.

One half of a table's repeats scores, the other judges, both ways round. What scores are worth is to
be held against what that half's own times are (`repeatability`): they are as noisy.
"""

import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from grid import Grid
from replay_cut import cut
from replay_half import Half, halves
from replay_judge import judged
from replay_methods import METHODS
from replay_study import chosen, config_of_table
from scipy.stats import spearmanr

from storage.records import CurvePoint, TrialRecord
from tuner.aggregate import hardware_of, summarise, that_count
from tuner.goal import time_score
from tuner.measurement import Measurement, seconds_to
from tuner.references import References
from tuner.score import Weights, score
from tuner.search.model import SmoothModel
from tuner.search.surrogate import Scale
from tuner.space import HardwareConfig, SearchSpace

SLOWDOWNS = ("slowdown", "at_least", "at_most", "among_drawn")
"""The fields of `Validity` that are times over a soonest config's, whose means are geometric."""
OTHERS = ("correlation", "reached", "drawn_reached")
"""Its other fields."""
DRAWN = 20
"""Configs that are drawn at random: as many as a study measures."""
DRAWS = 24
FEWEST_TO_SMOOTH = 5
"""Configs from which times are smoothed: a length in each of four dimensions, and the noise."""

Choice = tuple[float, tuple[float, float, float]]
"""A budget's share and weights."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What one half of a table tells of each config over its whole curves.

    `scores` order configs that work by how soon they reached the target, those that did not by
    their progress (`tuner.goal.time_score`); `seconds` are of those whose every repeat reached it,
    `smooth` what these are estimated to be without noise.
    """

    scores: dict[HardwareConfig, float]
    seconds: dict[HardwareConfig, float]
    smooth: dict[HardwareConfig, float]


@dataclass(frozen=True, slots=True)
class Validity:
    """What scores of one budget and one set of weights are worth on one table.

    `correlation` is Spearman's between score and truth, None where either is constant. `reached` is
    the share of the ways, one half judging the other, in which the chosen config reached the target
    in every repeat of the other half, None where no config did. The other three are of these ways
    alone: `slowdown` the chosen config's smoothed seconds over the least of them in the half that
    judges; `at_least` its own seconds over those of the config that was soonest in the half that
    scored, which is unlucky in the other one, None where that did not reach the target; `at_most`
    over those of the soonest in the half that judges, which is lucky there. The two bound the first
    on average over luck, not in every table. All these hang on which single config is chosen of a
    whole table; `among_drawn` is the mean slowdown of what is chosen of `DRAWN` configs, the
    baseline and others at random, over the soonest of these, by smoothed seconds; a choice that did
    not reach the target counts as the slowest config that did, which it is no sooner than.
    `drawn_reached` is the share of draws whose choice did, of all that hold one which did.
    """

    correlation: float | None = None
    slowdown: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    reached: float | None = None
    among_drawn: float | None = None
    drawn_reached: float | None = None


def repeatability(truths: Sequence[Truth], baseline: HardwareConfig) -> Validity:
    """Return what true times themselves are worth: those of one half, judged by the other.

    The config that is taken has the least smoothed seconds of its half. The mean of both ways.
    """
    own, other = truths
    pairs = [(own.scores[c], other.scores[c]) for c in own.scores if c in other.scores]
    correlation = _correlation(pairs)
    each = []
    for chooses, judges in ((own, other), (other, own)):

        def soonest(
            configs: Iterable[HardwareConfig], smooth: dict[HardwareConfig, float] = chooses.smooth
        ) -> HardwareConfig | None:
            return min((c for c in configs if c in smooth), key=smooth.__getitem__, default=None)

        worth = _worth(correlation, soonest(chooses.smooth), own=chooses, other=judges)
        each.append(_among_drawn(worth, soonest, chooses.scores, judges, baseline=baseline))
    return mean_of(each)


def validities(
    grid: Grid,
    truths: Sequence[Truth],
    *,
    shares: Sequence[float],
    candidates: Sequence[tuple[float, float, float]],
) -> dict[Choice, Validity]:
    """Return the validity of each budget and weights: the mean of each half judged by the other."""
    found: dict[Choice, Validity] = {}
    for share in shares:
        short = [judged(half, METHODS["grid"]) for half in halves(cut(grid, share))]
        for weights in candidates:
            each = [
                _validity(*half, own=own, other=other, weights=weights)
                for half, own, other in zip(short, truths, reversed(truths), strict=True)
            ]
            found[share, weights] = mean_of(each)
    return found


def truth_of(half: Half) -> Truth:
    """Return how soon each config reached the target return of its own half's calibration."""
    _, references, _ = judged(half, METHODS["grid"])
    target, start = references.target_return, references.quality.random_return
    if target is None or target <= start:
        raise ValueError(f"a table must have a target return above {start}, but got {target}")
    curves = {config: known for config, rows in half.rows.items() if (known := _counted(rows))}
    times = {c: [seconds_to(curve, target) for curve in known] for c, known in curves.items()}
    reached = {c: [time for time in known if time is not None] for c, known in times.items()}
    every = [time for known in reached.values() for time in known]
    # A time's score says little of times far from its reference: that is what is usual here.
    usual_s = statistics.median(every) if every else 1.0
    scores = {}
    for config, known in curves.items():
        returns = [[p.metrics.get("mean_return") for p in curve if p.learning] for curve in known]
        best = [max((r for r in one if r is not None), default=None) for one in returns]
        scores[config] = statistics.fmean(
            time_score(time, reference_s=usual_s, best_return=r, start=start, target=target)
            for time, r in zip(times[config], best, strict=True)
        )
    seconds = {
        c: statistics.fmean(known) for c, known in reached.items() if len(known) == len(curves[c])
    }
    return Truth(scores, seconds, smoothed(seconds, config_of_table(half, METHODS["grid"]).space()))


def _counted(rows: Sequence[Measurement]) -> list[Sequence[CurvePoint]]:
    """Return the curves of a config's measurements that count: as for its score."""
    curves = {id(row.record): row.curve for row in rows}
    return [curves[id(record)] for record in that_count([row.record for row in rows])]


def smoothed(
    seconds: dict[HardwareConfig, float], space: SearchSpace
) -> dict[HardwareConfig, float]:
    """Return the estimated seconds that configs take without noise, from one half of a table.

    Times of configs alike are alike: a Gaussian process of their logarithms, with lengths and noise
    as they themselves make likeliest. It knows nothing of configs that did not reach the target.
    """
    if len(seconds) < FEWEST_TO_SMOOTH:
        return dict(seconds)
    points, logs = Scale.of(space).points(list(seconds)), np.log(list(seconds.values()))
    no_trend = np.zeros((len(logs), 0))
    smooth = SmoothModel(points, no_trend, logs).predict(points, no_trend)[0]
    return dict(zip(seconds, np.exp(smooth).tolist(), strict=True))


def _validity(
    records: Sequence[TrialRecord],
    references: References,
    baseline: HardwareConfig,
    *,
    own: Truth,
    other: Truth,
    weights: tuple[float, float, float],
) -> Validity:
    """Return what the records of a half are worth when they are scored with these weights.

    `own` is the truth of that half, by which the soonest config is known without its luck in the
    `other`, which judges.
    """
    weighted = replace(references, weights=Weights(*weights))
    if sum(weighted.weights.as_dict()[name] for name in references.components) == 0:
        return Validity()
    scored = [_scored(record, weighted) for record in records]
    known = [s for s in summarise(scored, with_intervals=False) if s.final_score is not None]
    pairs = [
        (s.final_score, other.scores[s.config])
        for s in known
        if s.final_score is not None and s.config in other.scores
    ]

    def balanced(configs: Iterable[HardwareConfig]) -> HardwareConfig:
        wanted = set(configs)
        drawn = [record for record in scored if hardware_of(record) in wanted]
        return chosen(drawn, weighted, baseline, 1)["balanced"]

    configs = {hardware_of(record) for record in scored}
    worth = _worth(_correlation(pairs), balanced(configs), own=own, other=other)
    return _among_drawn(worth, balanced, configs, other, baseline=baseline)


def _among_drawn(
    worth: Validity,
    choose: Callable[[Iterable[HardwareConfig]], HardwareConfig | None],
    configs: Iterable[HardwareConfig],
    judges: Truth,
    *,
    baseline: HardwareConfig,
) -> Validity:
    """Return a worth with that of what is chosen of the baseline and some of the configs at random.

    The draws are the same whoever chooses among the same configs. See `Validity`.
    """
    random_draws, others = random.Random(0), sorted(set(configs) - {baseline})
    slowdowns, reached = [], []
    for _ in range(DRAWS):
        drawn = [baseline, *random_draws.sample(others, min(DRAWN - 1, len(others)))]
        known = [judges.smooth[config] for config in drawn if config in judges.smooth]
        if known and (config := choose(drawn)) is not None:
            slowest = max(judges.smooth.values())
            slowdowns.append(judges.smooth.get(config, slowest) / min(known))
            reached.append(config in judges.smooth)
    return replace(
        worth,
        among_drawn=statistics.geometric_mean(slowdowns) if slowdowns else None,
        drawn_reached=statistics.fmean(reached) if reached else None,
    )


def _worth(
    correlation: float | None, config: HardwareConfig | None, *, own: Truth, other: Truth
) -> Validity:
    """Return what a config is worth that was taken by what `own` is the truth of."""
    if config is None or not other.seconds:
        return Validity(correlation)
    if config not in other.seconds:
        return Validity(correlation, reached=0.0)
    seconds = other.seconds[config]
    soonest = min(own.seconds, key=own.seconds.__getitem__, default=None)
    return Validity(
        correlation,
        other.smooth[config] / min(other.smooth.values()),
        seconds / other.seconds[soonest] if soonest in other.seconds else None,
        seconds / min(other.seconds.values()),
        reached=1.0,
    )


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's rank correlation, None where one side is constant or there are none."""
    if not pairs or any(len(set(side)) < 2 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(pairs).statistic)


def _scored(record: TrialRecord, references: References) -> TrialRecord:
    if record.status != "success":
        return record
    scores = score(
        references.scores(),
        device_util=record.device_util,
        quality_score=record.quality_score,
        sps=record.sps,
    )
    return replace(record, final_score=scores.final_score)


def mean_of(each: Sequence[Validity]) -> Validity:
    """Return the means of what is known, geometric ones of the slowdowns."""

    def known(name: str) -> list[float]:
        return [value for v in each if (value := getattr(v, name)) is not None]

    means = {name: statistics.fmean(known(name)) for name in OTHERS if known(name)}
    times = {name: statistics.geometric_mean(known(name)) for name in SLOWDOWNS if known(name)}
    return Validity(**means, **times)
