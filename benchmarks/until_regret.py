"""Where `--until-regret` ends a search, how much was in truth still to be had?

    .venv/bin/python benchmarks/until_regret.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/until_regret.py --quick        five seeds, one share

Studies are replayed on the tables of `benchmarks/grids` (see `record_grid.py`): half of a table's
repeats are searched, the other half tells the truth, in turns. A regret is (best score − score of
the `balanced` config) / best score, both by the half that was not searched; best is what all
measurements of the searched half would choose. Below 0 where luck chose better.
"""

import itertools
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from grid import Grid, add_grids, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, say, this_device
from replay_judge import both_ways
from replay_methods import METHODS
from replay_study import Method, NoHeartbeat, calibrated, exported

from tuner.trials import search

optuna.logging.set_verbosity(optuna.logging.ERROR)

SHARES = (0.01, 0.02, 0.05)
SAMPLERS = ("tpe", "structured", "random")
SEEDS = 20
MOST = 0.5
"""Share of a space after which a search that has not stopped is given up."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where one search ended: after so many trials, by itself or given up, and its true regret."""

    trials: int
    is_by_regret: bool
    regret: float


def main() -> None:
    """Replay, print and, if asked, write."""
    parser = parser_of(__doc__)
    add_grids(parser)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    parser.add_argument("--min-trials", type=int, default=20, help="default: 20, as of a study")
    arguments = parser.parse_args()
    tables = tables_of(parser, arguments)
    shares = SHARES[:1] if arguments.quick else SHARES
    seeds = tuple(range(5 if arguments.quick else arguments.seeds))
    jobs = list(itertools.product(tables, SAMPLERS, shares))
    rows = []
    with ProcessPoolExecutor() as pool:
        orders = ((*job, seeds, arguments.min_trials) for job in jobs)
        for row in pool.map(run_job, *zip(*orders, strict=True)):
            say(f"{row['table']}, {row['sampler']}, {row['share']:g}: done")
            rows.append(row)
    document = facts(this_device()) | {
        "seeds": len(seeds), "min_trials": arguments.min_trials, "rows": rows
    }  # fmt: skip
    deliver(document, in_words(document), arguments)


def run_job(
    table: Path, sampler: str, share: float, seeds: Sequence[int], min_trials: int
) -> dict[str, Any]:
    """Return the figures of one sampler and share on one table."""
    stops = stops_on(read_grid(table), sampler, share, seeds=seeds, min_trials=min_trials)
    name = name_of(table)
    return {"table": name, "sampler": sampler, "share": share, **summary(stops, share)}


def stops_on(
    grid: Grid, sampler: str, share: float, *, seeds: Sequence[int], min_trials: int
) -> list[Stop]:
    """Replay a search for each seed until it expects less than `share` still to be had."""
    ways = both_ways(grid)
    most = max(min_trials, int(MOST * len(ways[0][0].rows)))
    settings = {"until_regret": share, "min_trials": min_trials, "trials": most}
    method = METHODS[sampler]
    ending = Method(method.make_sampler, {**method.settings, **settings})
    heartbeat: Any = NoHeartbeat()
    stops = []
    for seed in seeds:
        searched, judge = ways[seed % 2]
        session = calibrated(searched, ending, seed=seed, budget_s=None)
        reason = search(session, heartbeat)
        best, truth = judge.best["balanced"], judge.worths["balanced"]
        worth = truth.of(exported(session)["balanced"])
        trials = len({record.trial for record in session.records()})
        stops.append(Stop(trials, reason.startswith("less than"), (best - worth) / best))
    return stops


def summary(stops: Sequence[Stop], share: float) -> dict[str, Any]:
    """Return how often searches stopped by themselves, when, and the true regret then."""
    own = [stop for stop in stops if stop.is_by_regret]
    regrets = [stop.regret for stop in own]
    return {
        "searches": len(stops),
        "stopped": len(own),
        "median_trials": statistics.median(s.trials for s in own) if own else None,
        "median_regret": statistics.median(regrets) if own else None,
        "worst_regret": max(regrets, default=None),
        "kept": sum(regret <= share for regret in regrets),
    }


def in_words(document: dict[str, Any]) -> str:
    """Return the table of all searches."""
    lines = [
        f"{document['seeds']} seeds each, never before {document['min_trials']} trials; kept: the "
        "true regret is at most the share",
        f"{'table':16s} {'sampler':12s} {'share':>6s} {'stopped':>8s} {'trials':>7s} {'kept':>5s} "
        f"{'median regret':>14s} {'worst':>7s}",
    ]
    for row in document["rows"]:
        trials = "" if row["median_trials"] is None else f"{row['median_trials']:.0f}"
        lines.append(
            f"{row['table']:16s} {row['sampler']:12s} {row['share']:>6.1%} {row['stopped']:>8d} "
            f"{trials:>7s} {row['kept']:>5d} {_percent(row['median_regret']):>14s} "
            f"{_percent(row['worst_regret']):>7s}"
        )
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


if __name__ == "__main__":
    main()
