"""Which way to search finds what an exhaustive search would export, and at which cost?

    .venv/bin/python benchmarks/replay.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/replay.py --quick              four seeds

Studies are replayed on the tables of `benchmarks/grids` (see `record_grid.py`). Half of a table's
repeats are searched, the other half judges: by even seeds the one, by odd seeds the other. What
counts is the config that would be *exported*, not the best that was ever seen. Time is the
device's: compiling, the baseline's measurements and the finalists included; what a calibration asks
before them (chance, tracing, what fits) is free to all. `--out` also gets a plot.
"""

import argparse
import itertools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from grid import Grid, add_grids, environment_of, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, say, this_device
from priors import left_out
from replay_figures import GOOD, LONGEST, NEAR, SHARES, ahead_of, known_of, summary, times
from replay_half import Half
from replay_judge import Judge, both_ways
from replay_methods import LEFT_OUT, METHODS, OURS
from replay_study import Method, replay
from replay_tables import DRAWN, NULLS
from replay_words import in_words
from scipy.stats import spearmanr

from tuner.profiles import PROFILE_NAMES

optuna.logging.set_verbosity(optuna.logging.ERROR)

SEEDS = 200
DRAWS = 4
"""Of each null table; the seeds are shared out among them, and among processes."""


@dataclass(frozen=True, slots=True)
class Job:
    """One method on one table, over some seeds; of a null table each job has a draw of its own.

    `others` are the tables of other environments, which `structured_left_out` takes its
    expectations from.
    """

    table: Path
    null: str | None
    method: str
    seeds: tuple[int, ...]
    draw: int
    others: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The table's, with what was done to it."""
        name = name_of(self.table)
        return name if self.null is None else f"{name} ({self.null})"


def main() -> None:
    """Replay, print and, if asked, write."""
    parser = parser_of(__doc__)
    add_grids(parser)
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, by comma")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    parser.add_argument("--nulls", action="store_true", help="also on tables made to mislead")
    arguments = parser.parse_args()
    tables = tables_of(parser, arguments)
    environments = {environment_of(read_grid(table)) for table in tables}
    wanted = chosen_methods(parser, arguments.methods, len(environments))
    document = facts(this_device()) | run_all(
        tables,
        wanted,
        seeds=4 if arguments.quick else arguments.seeds,
        nulls=tuple(NULLS) if arguments.nulls else (),
    )
    words = in_words(document)
    if OURS[0] in wanted:
        document["methods"]["ours"] = document["methods"][OURS[0]]
    deliver(document, words, arguments)
    if arguments.out is not None:
        from replay_plot import plot  # matplotlib, of the extra `bench`

        plot(document, arguments.out / "replay.svg")


def chosen_methods(parser: argparse.ArgumentParser, names: str, num_environments: int) -> list[str]:
    """Return the methods that were asked for."""
    wanted, known = names.split(","), (*METHODS, LEFT_OUT)
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"--methods must be of {', '.join(known)}, but got {', '.join(unknown)}")
    if LEFT_OUT in wanted and num_environments < 2:
        parser.error(
            f"{LEFT_OUT} must have tables of two environments, but got {num_environments}; "
            "record another"
        )
    return wanted


def run_all(
    tables: Sequence[Path], methods: Sequence[str], *, seeds: int, nulls: Sequence[str]
) -> dict[str, Any]:
    """Return what every method comes to on every table, and over all of them."""
    # Seeds come in pairs, one for each half, so that every draw of a null is searched both ways.
    chunks = [tuple(seed for seed in range(seeds) if seed // 2 % DRAWS == i) for i in range(DRAWS)]
    environments = {table: environment_of(read_grid(table)) for table in tables}
    others = {t: tuple(o for o in tables if environments[o] != environments[t]) for t in tables}
    jobs = [
        Job(table, null, method, chunk, draw, others[table])
        for table, null, method, (draw, chunk) in itertools.product(
            tables, (None, *nulls), methods, tuple(enumerate(chunks))
        )
        if chunk
    ]
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    spawn = multiprocessing.get_context("spawn")  # whoever calls this may hold threads of jax
    with ProcessPoolExecutor(mp_context=spawn) as pool:
        for job, found in zip(jobs, pool.map(run_job, jobs), strict=True):
            results.setdefault((job.name, job.method), []).extend(found)
            say(f"{job.name}, {job.method}: {len(results[job.name, job.method])} of {seeds} seeds")
    by_table: dict[str, Any] = {}
    for (name, method), found in results.items():
        by_table.setdefault(name, {})[method] = summary(found, results.get((name, "random"), []))
    real = [name_of(table) for table in tables]
    everywhere = {m: [row for name in real for row in results[name, m]] for m in methods}
    return {
        "seeds": seeds,
        "noise": {name_of(t): noise_of(read_grid(t)) for t in tables},
        "tables": by_table,
        "methods": {
            m: summary(rows, everywhere.get("random", [])) for m, rows in everywhere.items()
        },
        "ahead": {
            ours: {
                m: ahead_of(rows, everywhere[ours])
                for m, rows in everywhere.items()
                if m not in OURS or m != ours == OURS[0]
            }
            for ours in methods
            if ours in OURS
        },
    }


def noise_of(grid: Grid) -> dict[str, Any]:
    """Return what a table can tell of `balanced`: how its halves agree, and who is good enough.

    `agreement` is Spearman's rank correlation of the composite between the halves. Where the one
    and the other half is searched, `good` counts the configs whose regret is at most `GOOD`, None
    where all are tied, and `gap` is how many ties the best lies above the median; `disturbed`
    counts measurements that something else took the device from, and `once` the configs that a half
    has one measurement of, which tell nothing of luck.
    """
    ways = both_ways(grid)
    first, other = (judge.seen for _, judge in ways)
    shared = [config for config in first if config in other]
    ranks = spearmanr([first[c] for c in shared], [other[c] for c in shared])
    return {
        "configs": len(ways[0][0].rows),
        "measurements": len(grid.rows),
        "disturbed": sum(row.record.contaminated is not None for row in grid.rows),
        "once": sum(len(rows) == 1 for half, _ in ways for rows in half.rows.values()) / len(ways),
        "agreement": float(ranks.statistic),
        "good": [_num_good(judge) for _, judge in ways],
        "gap": [judge.gap_in_ties("balanced") for _, judge in ways],
    }


def run_job(job: Job) -> list[dict[str, Any]]:
    """Return one document for each seed: regrets by budget and profile, and the way there."""
    grid = read_grid(job.table)
    if job.null is not None:
        grid = NULLS[job.null](grid, job.draw)
    ways = both_ways(grid)
    # Draws of a null that is not drawn by chance are one table; so are those of an environment.
    drawn = (environment_of(grid), job.draw if job.null in DRAWN else 0)
    if job.method == LEFT_OUT:
        method = left_out([read_grid(other) for other in job.others])
    else:
        method = METHODS[job.method]
    return [
        {"place": (drawn, (job.name, seed % 2))} | run_seed(method, *ways[seed % 2], seed)
        for seed in job.seeds
    ]


def run_seed(method: Method, searched: Half, judge: Judge, seed: int) -> dict[str, Any]:
    """Replay one seed at every budget."""
    one_pass_s = searched.one_pass_s
    regrets, trials, exact, overruns = {}, {}, {}, []
    for share in SHARES:
        found = replay(searched, method, seed=seed, budget_s=share * one_pass_s)
        regrets[str(share)] = {
            name: judge.regret(name, found.chosen[name]) for name in PROFILE_NAMES
        }
        trials[str(share)] = found.trials
        exact[str(share)] = judge.random_regret(found.trials)
        overruns.append(found.device_s / (share * one_pass_s) - 1)
    whole = replay(searched, method, seed=seed, budget_s=LONGEST * one_pass_s, traced=True)
    paths = {
        name: [(at_s / one_pass_s, judge.regret(name, c[name])) for at_s, c in whole.trace]
        for name in PROFILE_NAMES
    }
    return {
        "seed": seed,
        "regrets": regrets,
        "trials": trials,
        "exact": exact,
        "share_to_near": {
            name: next((at for at, r in path if r is not None and r <= NEAR), None)
            for name, path in paths.items()
        },
        "paths": {
            name: [regret_at(path, share) for share in times()] for name, path in paths.items()
        },
        "ooms": whole.ooms,
        "device_s": one_pass_s,
        "overrun": max(overruns),
    }


def regret_at(path: Sequence[tuple[float, float | None]], share: float) -> float | None:
    """Return the regret of what would have been exported then; None during the calibration."""
    before = [regret for at, regret in path if at <= share]
    return before[-1] if before else None


def _num_good(judge: Judge) -> int | None:
    regrets = [judge.regret("balanced", config) for config in judge.worths["balanced"].figures]
    known = known_of(regrets)
    return sum(regret <= GOOD for regret in known) if known else None


if __name__ == "__main__":
    main()
