"""Does a short trial's score say which config reaches a return soonest, and with which weights?

    .venv/bin/python benchmarks/score_validity.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/score_validity.py --quick      two budgets, few weights

On the tables of `benchmarks/grids` (see `record_grid.py`), whose curves should be longer than a
study's trials: each is cut to a share of its env-steps and scored as a study would, half of its
repeats at a time, and the other half tells how soon each config truly reached the target return.
What scores are worth is to be held against repeat by repeat: how the one half's true times order
configs as the other's do (a score without noise could do better than that). How much slower than
the soonest the chosen config is cannot be read off noisy times, the least of which is luck: so it
is told three times, first by times that are smoothed over configs alike. Weights are chosen for
each budget on the tables of other environments than the one they are tested on. Quality rests on
evaluations, of a shorter budget on those of the milestones up to its end; on training returns where
it does not end at a milestone, or the table has no evaluation there: of a shorter budget it is
noisier than a study's. Speed and utilisation are those of the whole run.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from grid import Grid, add_grids, environment_of, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, say, this_device
from replay_cut import cut, without_milestones
from replay_half import Half, halves
from replay_judge import judged
from replay_methods import METHODS
from replay_study import chosen, config_of_table
from scipy.stats import spearmanr

from storage.records import TrialRecord
from tuner.aggregate import summarise
from tuner.goal import time_score
from tuner.measurement import seconds_to
from tuner.references import References
from tuner.score import CPU_WEIGHTS, Weights, score
from tuner.search.model import SmoothModel
from tuner.search.surrogate import Scale
from tuner.space import HardwareConfig, SearchSpace

optuna.logging.set_verbosity(optuna.logging.ERROR)

DEFAULTS: tuple[tuple[float, float, float], ...] = (astuple(CPU_WEIGHTS), astuple(Weights()))
"""The weights of utilisation, quality and throughput of a study on a CPU, and on a GPU."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Budgets, as shares of a table's env-steps."""
GOOD_ENOUGH = 0.02
"""Rank correlations that differ by no more than this are taken to be as good; see `choose`."""
AIM = 0.9
"""The share of the correlation between repeats that a score's should have."""

SLOWDOWNS = ("slowdown", "at_least", "at_most")
"""The fields of `Validity` that are times over a soonest config's, whose means are geometric."""
OTHERS = ("correlation", "reached")
"""Its other fields."""
FEWEST_TO_SMOOTH = 5
"""Configs from which times are smoothed: a length in each of four dimensions, and the noise."""

Choice = tuple[float, tuple[float, float, float]]
"""A budget's share and weights."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What one half of a table tells of each config over its whole curves.

    `scores` order configs by how soon they reached the target, those that did not by their
    progress (`tuner.goal.time_score`); `seconds` are of those whose every repeat reached it,
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
    on average over luck, not in every table.
    """

    correlation: float | None = None
    slowdown: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    reached: float | None = None


def main() -> None:
    """Measure, choose, print and, if asked, write."""
    parser = parser_of(__doc__)
    add_grids(parser)
    parser.add_argument(
        "--by-end", action="store_true", help="quality by the final policy's evaluation alone"
    )
    arguments = parser.parse_args()
    tables = tables_of(parser, arguments)
    shares = (SHARES[1], SHARES[-1]) if arguments.quick else SHARES
    candidates = simplex(0.5 if arguments.quick else 0.2)
    found: dict[str, dict[Choice, Validity]] = {}
    repeatabilities: dict[str, float | None] = {}
    with ProcessPoolExecutor() as pool:
        ask = partial(measure, shares=shares, candidates=candidates, by_end=arguments.by_end)
        measured = pool.map(ask, tables)
        for table, (worth, highest) in zip(tables, measured, strict=True):
            name = name_of(table)
            found[name], repeatabilities[name] = worth, highest
            say(f"{name}: done")
    environments = {name_of(table): environment_of(read_grid(table)) for table in tables}
    document = facts(this_device()) | result(found, repeatabilities, environments)
    deliver(document, in_words(document), arguments)


def simplex(step: float) -> list[tuple[float, float, float]]:
    """Return all weights of sum 1 that are multiples of a step, and the defaults before them."""
    number = round(1 / step)
    parts = [
        (i / number, j / number, (number - i - j) / number)
        for i, j in itertools.product(range(number + 1), repeat=2)
        if i + j <= number
    ]
    return [*DEFAULTS, *(p for p in parts if not any(np.allclose(p, known) for known in DEFAULTS))]


def measure(
    table: Path,
    *,
    shares: Sequence[float],
    candidates: Sequence[tuple[float, float, float]],
    by_end: bool,
) -> tuple[dict[Choice, Validity], float | None]:
    """Return the validity of each budget and weights on a table, and its repeatability."""
    grid = read_grid(table)
    if by_end:
        grid = without_milestones(grid)
    truths = [truth_of(half) for half in halves(grid)]
    return validities(grid, truths, shares=shares, candidates=candidates), repeatability(truths)


def repeatability(truths: Sequence[Truth]) -> float | None:
    """Return Spearman's rank correlation between the true times of the two halves."""
    first, other = (truth.scores for truth in truths)
    return _correlation([(first[c], other[c]) for c in first if c in other])


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
            found[share, weights] = _mean(each)
    return found


def truth_of(half: Half) -> Truth:
    """Return how soon each config reached the target return of its own half's calibration."""
    _, references, _ = judged(half, METHODS["grid"])
    target, start = references.target_return, references.quality.random_return
    if target is None or target <= start:
        raise ValueError(f"a table must have a target return above {start}, but got {target}")
    scores, seconds = {}, {}
    for config, rows in half.rows.items():
        times = [seconds_to(row.curve, target) for row in rows]
        returns = [[p.metrics.get("mean_return") for p in row.curve if p.learning] for row in rows]
        best = [max((r for r in one if r is not None), default=None) for one in returns]
        # Any reference orders the times alike: one second.
        scores[config] = statistics.fmean(
            time_score(time, reference_s=1.0, best_return=r, start=start, target=target)
            for time, r in zip(times, best, strict=True)
        )
        reached = [time for time in times if time is not None]
        if len(reached) == len(times):
            seconds[config] = statistics.fmean(reached)
    return Truth(scores, seconds, smoothed(seconds, config_of_table(half, METHODS["grid"]).space()))


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
    pairs = [(s.final_score, other.scores[s.config]) for s in known if s.final_score is not None]
    correlation = _correlation(pairs)
    if not other.seconds:
        return Validity(correlation)
    config = chosen(scored, weighted, baseline, 1)["balanced"]
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


def _mean(each: Sequence[Validity]) -> Validity:
    """Return the means of what is known, geometric ones of the slowdowns."""

    def known(name: str) -> list[float]:
        return [value for v in each if (value := getattr(v, name)) is not None]

    means = {name: statistics.fmean(known(name)) for name in OTHERS if known(name)}
    times = {name: statistics.geometric_mean(known(name)) for name in SLOWDOWNS if known(name)}
    return Validity(**means, **times)


def choose(found: Sequence[dict[Choice, Validity]], share: float) -> Choice | None:
    """Return the weights for a budget that order configs best, of those alike the quickest.

    Alike are those within `GOOD_ENOUGH` of the highest rank correlation in the mean; the quickest
    those whose `balanced` reaches the target most often, and is least slow. None where no
    correlation is known. The rule was settled with the first six tables in sight.

    Args:
        found: of each environment, what every choice is worth.
        share: the budget's.
    """
    choices = [choice for choice in found[0] if choice[0] == share]
    told = {c: sum(one[c].correlation is not None for one in found) for c in choices}
    means = {c: _mean([one[c] for one in found]) for c in choices if told[c] == max(told.values())}
    known = {c: mean.correlation for c, mean in means.items() if mean.correlation is not None}
    if not known:
        return None
    highest = max(known.values())

    def rank(choice: Choice) -> tuple[float, float, float]:
        mean = means[choice]
        return -(mean.reached or 0.0), mean.slowdown or math.inf, -known[choice]

    return min((c for c, value in known.items() if value >= highest - GOOD_ENOUGH), key=rank)


def result(
    found: dict[str, dict[Choice, Validity]],
    repeatabilities: dict[str, float | None],
    environments: dict[str, str],
) -> dict[str, Any]:
    """Return what every budget and weights are worth, and which would be chosen.

    `tables` is what every choice is worth on each table; `left_out`, for each table and budget,
    the weights that are chosen on the other environments, and what they are worth on this one;
    `over_all` the mean of every choice over environments, and `chosen` those of them that are
    chosen on all. `budget` is the shortest at which what is left out comes to `AIM` of the
    correlation between repeats on every table, None where none does.
    """
    choices = list(next(iter(found.values())))
    shares = sorted({share for share, _ in choices})
    tables: dict[str, list[dict[Choice, Validity]]] = {}
    for name, table in found.items():
        tables.setdefault(environments[name], []).append(table)
    means = {e: {c: _mean([t[c] for t in known]) for c in choices} for e, known in tables.items()}
    left_out: dict[str, list[dict[str, Any]]] = {}
    for name, table in found.items():
        others = [mean for environment, mean in means.items() if environment != environments[name]]
        picks = [choose(others, share) for share in shares] if others else []
        left_out[name] = [_as_data(pick, table[pick]) for pick in picks if pick is not None]
    over_all = {c: _mean([mean[c] for mean in means.values()]) for c in choices}
    best = [choose(list(means.values()), share) for share in shares]
    return {
        "tables": {
            name: [_as_data(choice, worth) for choice, worth in table.items()]
            for name, table in found.items()
        },
        "repeatabilities": repeatabilities,
        "left_out": left_out,
        "budget": min(filter(partial(_is_enough, left_out, repeatabilities), shares), default=None),
        "over_all": [_as_data(choice, worth) for choice, worth in over_all.items()],
        "chosen": [_as_data(choice, over_all[choice]) for choice in best if choice is not None],
    }


def _is_enough(
    left_out: dict[str, list[dict[str, Any]]],
    repeatabilities: dict[str, float | None],
    share: float,
) -> bool:
    """Return whether a budget's correlations come to `AIM` on every table that repeats tell of."""
    return all(
        any(
            row["share"] == share and (row["correlation"] or 0.0) >= AIM * highest
            for row in left_out[name]
        )
        for name, highest in repeatabilities.items()
        if highest is not None
    )


def _as_data(choice: Choice, validity: Validity) -> dict[str, Any]:
    return {
        "share": choice[0],
        "weights": list(choice[1]),
        **asdict(validity),
    }


def in_words(document: dict[str, Any]) -> str:
    """Return the tables of all figures."""
    lines = [
        "rank correlation of final_score with the true time to the target return (1: the same "
        "order), and how many times the soonest config's time the chosen `balanced` takes: of what "
        "is likely soonest, of what was soonest in the half that chose, and of what luck made "
        "soonest in the half that judges; reached: in which share of the ways, one half judging "
        "the other, it reaches that return, of which alone the times are",
        f"{'table':16s} {'budget':>10s} {'weights':>14s} {'correlation':>12s} {'slowdown':>9s} "
        f"{'at least':>9s} {'at most':>9s} {'reached':>9s}",
    ]
    for name, rows in document["tables"].items():
        lines += [_line(name, row) for row in rows if tuple(row["weights"]) in DEFAULTS]
    lines += [
        f"{name:16s} {'repeat against repeat':>25s} {_two(value):>12s}"
        for name, value in document["repeatabilities"].items()
    ]
    lines.append(
        "weights chosen on the tables of other environments, for each budget, tested on the one "
        "that is named"
    )
    lines += [_line(name, row) for name, rows in document["left_out"].items() for row in rows]
    if any(document["left_out"].values()):
        budget = "none" if document["budget"] is None else f"{document['budget']:.1%}"
        lines.append(
            f"shortest budget at which that comes to {AIM:g} of repeat against repeat on every "
            f"table: {budget}"
        )
    else:
        lines.append("none: that takes two environments")
    lines.append("weights chosen on all tables, and not tested: the mean over environments")
    lines += [_line("all", row) for row in document["chosen"]]
    lines.append("all weights, with the longest budget, likewise")
    last = max(row["share"] for row in document["over_all"])
    rows = [row for row in document["over_all"] if row["share"] == last]
    lines += [_line("all", row) for row in sorted(rows, key=_by_correlation)]
    return "\n".join(lines)


def _by_correlation(row: dict[str, Any]) -> float:
    return math.inf if row["correlation"] is None else -row["correlation"]


def _line(table: str, row: dict[str, Any]) -> str:
    weights = "/".join(f"{weight:g}" for weight in row["weights"])
    figures = ["" if row[name] is None else f"{row[name]:.2f} ×" for name in SLOWDOWNS]
    figures.append("" if row["reached"] is None else f"{row['reached']:.0%}")
    return f"{table:16s} {row['share']:>10.1%} {weights:>14s} {_two(row['correlation']):>12s} " + (
        " ".join(f"{figure:>9s}" for figure in figures)
    )


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
