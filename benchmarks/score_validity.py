"""Does a short trial's score say which config reaches a return soonest, and with which weights?

    .venv/bin/python benchmarks/score_validity.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/score_validity.py --quick      two budgets, few weights

On the tables of `benchmarks/grids` (see `record_grid.py`), whose curves should be longer than a
study's trials: each is cut to a share of its env-steps and scored as a study would, half of its
repeats at a time, and the other half tells how soon each config truly reached the target return.
What scores are worth is to be held against half by half: how the one's true times order
configs as the other's do, and what choosing by them comes to (a score without noise could do better
than that). How much slower than the soonest the chosen config is cannot be read off noisy times,
the least of which is luck: so it is told three times, first by times that are smoothed over configs
alike; and since it hangs on one config, also for what is chosen of 20, the baseline and others at
random. Weights are chosen for each budget on the tables of other environments than the one they are
tested on.

Quality rests on evaluations, of a shorter budget on those of the milestones up to its end; on
training returns where it does not end at a milestone, or the table has no evaluation there: of a
shorter budget it is noisier than a study's. Utilisation is that of the whole run.
"""

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from grid import add_grids, environment_of, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, say, this_device
from replay_cut import without_milestones
from replay_half import halves
from validity import (
    DRAWN,
    SLOWDOWNS,
    Choice,
    Validity,
    mean_of,
    repeatability,
    truth_of,
    validities,
)

from tuner.score import CPU_WEIGHTS, Weights
from tuner.space import HardwareConfig

optuna.logging.set_verbosity(optuna.logging.ERROR)

DEFAULTS: tuple[tuple[float, float, float], ...] = (astuple(CPU_WEIGHTS), astuple(Weights()))
"""The weights of utilisation, quality and throughput of a study on a CPU, and on a GPU."""
SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Budgets, as shares of a table's env-steps."""
GOOD_ENOUGH = 0.02
"""Rank correlations that differ by no more than this are taken to be as good; see `choose`."""
AIM = 0.9
"""The share of the correlation between halves that a score's should have."""


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
    repeatabilities: dict[str, Validity] = {}
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
) -> tuple[dict[Choice, Validity], Validity]:
    """Return the validity of each budget and weights on a table, and its repeatability."""
    grid = read_grid(table)
    if by_end:
        grid = without_milestones(grid)
    truths = [truth_of(half) for half in halves(grid)]
    highest = repeatability(truths, HardwareConfig(**grid.facts["baseline"]))
    return validities(grid, truths, shares=shares, candidates=candidates), highest


def choose(found: Sequence[dict[Choice, Validity]], share: float) -> Choice | None:
    """Return the weights for a budget that order configs best, of those alike the quickest.

    Alike are those within `GOOD_ENOUGH` of the highest rank correlation in the mean; the quickest
    those whose `balanced` is least slow of what is drawn at random: what it is of a whole table
    hangs on one config. None where no correlation is known. The rule was settled with tables in
    sight.

    Args:
        found: of each environment, what every choice is worth.
        share: the budget's.
    """
    choices = [choice for choice in found[0] if choice[0] == share]
    told = {c: sum(one[c].correlation is not None for one in found) for c in choices}
    means = {
        c: mean_of([one[c] for one in found]) for c in choices if told[c] == max(told.values())
    }
    known = {c: mean.correlation for c, mean in means.items() if mean.correlation is not None}
    if not known:
        return None
    highest = max(known.values())

    def rank(choice: Choice) -> tuple[float, float]:
        return means[choice].among_drawn or math.inf, -known[choice]

    return min((c for c, value in known.items() if value >= highest - GOOD_ENOUGH), key=rank)


def result(
    found: dict[str, dict[Choice, Validity]],
    repeatabilities: dict[str, Validity],
    environments: dict[str, str],
) -> dict[str, Any]:
    """Return what every budget and weights are worth, and which would be chosen.

    `tables` is what every choice is worth on each table; `left_out`, for each table and budget,
    the weights that are chosen on the other environments, and what they are worth on this one;
    `over_all` the mean of every choice over environments, and `chosen` those of them that are
    chosen on all. `budget` is the shortest at which what is left out comes to `AIM` of the
    correlation between halves on every table, None where none does.
    """
    choices = list(next(iter(found.values())))
    shares = sorted({share for share, _ in choices})
    tables: dict[str, list[dict[Choice, Validity]]] = {}
    for name, table in found.items():
        tables.setdefault(environments[name], []).append(table)
    means = {e: {c: mean_of([t[c] for t in known]) for c in choices} for e, known in tables.items()}
    left_out: dict[str, list[dict[str, Any]]] = {}
    for name, table in found.items():
        others = [mean for environment, mean in means.items() if environment != environments[name]]
        picks = [choose(others, share) for share in shares] if others else []
        left_out[name] = [_as_data(pick, table[pick]) for pick in picks if pick is not None]
    over_all = {c: mean_of([mean[c] for mean in means.values()]) for c in choices}
    best = [choose(list(means.values()), share) for share in shares]
    return {
        "tables": {
            name: [_as_data(choice, worth) for choice, worth in table.items()]
            for name, table in found.items()
        },
        "repeatabilities": {name: asdict(worth) for name, worth in repeatabilities.items()},
        "left_out": left_out,
        "budget": min(filter(partial(_is_enough, left_out, repeatabilities), shares), default=None),
        "over_all": [_as_data(choice, worth) for choice, worth in over_all.items()],
        "chosen": [_as_data(choice, over_all[choice]) for choice in best if choice is not None],
    }


def _is_enough(
    left_out: dict[str, list[dict[str, Any]]],
    repeatabilities: dict[str, Validity],
    share: float,
) -> bool:
    """Return whether a budget's correlations come to `AIM` on every table that repeats tell of."""
    return all(
        any(
            row["share"] == share and (row["correlation"] or 0.0) >= AIM * highest
            for row in left_out[name]
        )
        for name, worth in repeatabilities.items()
        if (highest := worth.correlation) is not None
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
        f"the other, it reaches that return, of which alone the times are; of {DRAWN}: of so many "
        "configs, the baseline and others at random, as many as a study measures, the chosen one's "
        "time over the soonest's, that of the slowest which does where it does not reach that "
        "return, and in which share of the draws it does",
        f"{'table':16s} {'budget':>10s} {'weights':>14s} {'correlation':>12s} {'slowdown':>9s} "
        f"{'at least':>9s} {'at most':>9s} {'reached':>9s} {f'of {DRAWN}':>9s} "
        f"{'reached':>9s}",
    ]
    for name, rows in document["tables"].items():
        lines += [_line(name, row) for row in rows if tuple(row["weights"]) in DEFAULTS]
    lines.append("half against half: true times of the one in place of a score, smoothed to choose")
    lines += [
        f"{name:16s} {'true times':>25s} {_figures(row)}"
        for name, row in document["repeatabilities"].items()
    ]
    lines.append(
        "weights chosen on the tables of other environments, for each budget, tested on the one "
        "that is named"
    )
    lines += [_line(name, row) for name, rows in document["left_out"].items() for row in rows]
    if any(document["left_out"].values()):
        budget = "none" if document["budget"] is None else f"{document['budget']:.1%}"
        lines.append(
            f"shortest budget at which that comes to {AIM:g} of half against half on every "
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
    return f"{table:16s} {row['share']:>10.1%} {weights:>14s} {_figures(row)}"


def _figures(row: dict[str, Any]) -> str:
    *figures, last = ["" if row[name] is None else f"{row[name]:.2f} ×" for name in SLOWDOWNS]
    reached = ["" if row[n] is None else f"{row[n]:.0%}" for n in ("reached", "drawn_reached")]
    figures += [reached[0], last, reached[1]]
    correlation = "" if row["correlation"] is None else f"{row['correlation']:.2f}"
    return (f"{correlation:>12s} " + " ".join(f"{figure:>9s}" for figure in figures)).rstrip()


if __name__ == "__main__":
    main()
