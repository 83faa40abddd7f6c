"""Which way to search finds what an exhaustive search would export, and at which cost?

    .venv/bin/python benchmarks/replay.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/replay.py --quick              three seeds, one budget

Studies are replayed on the tables of `benchmarks/grids` (see `record_grid.py`). Half of a table's
repeats are searched, the other half judges. What counts is the config that would be *exported*, not
the best that was ever seen. Time is the device's: compiling, calibration and finalists included.
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from grid import Grid, read_grid
from ppo_document import deliver, facts, parser_of, say, this_device
from replay_methods import METHODS
from replay_study import PROFILES, Half, Worth, halves, replay, worths
from replay_tables import NULLS
from scipy.stats import bootstrap, spearmanr

from tuner.space import HardwareConfig

optuna.logging.set_verbosity(optuna.logging.ERROR)

SHARES = (0.05, 0.1, 0.2)
"""Budgets, as shares of one repeat of the table."""
LONGEST = 0.4
"""Share of the table after which a search that has not come near is given up."""
SEEDS = 200
NEAR = 0.05
"""The normalised regret whose device-seconds are reported."""
GOOD = 0.1
"""The normalised regret that a replay must not exceed to have succeeded."""
POINTS = 40
"""Times at which a search is compared with a random one for its P-score."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Says what exporting a config costs, by the half that was not searched.

    `best` is what a search over the whole first half exports, `median` the median config's figure;
    `is_tied` where the two cannot be told apart.
    """

    worths: dict[str, Worth]
    best: dict[str, float]
    median: dict[str, float]
    is_tied: dict[str, bool]

    @classmethod
    def of(cls, searched: Half, judging: Half) -> "Judge":
        """Return the judge of a table."""
        everything = replay(searched, METHODS["grid"], seed=0, budget_s=None)
        found = worths(judging, METHODS["grid"])
        best = {name: found[name].figures[everything.chosen[name]] for name in PROFILES}
        median = {name: statistics.median(found[name].figures.values()) for name in PROFILES}
        tied = {name: best[name] - median[name] <= found[name].tie for name in PROFILES}
        return cls(found, best, median, tied)

    def regret(self, profile: str, config: HardwareConfig) -> float | None:
        """Return (best − chosen) / (best − median), below 0 where luck chose better.

        None where all are tied. A config that did not work again is worth the least.
        """
        if self.is_tied[profile]:
            return None
        figures, best = self.worths[profile].figures, self.best[profile]
        worth = figures.get(config, min(figures.values()))
        return (best - worth) / (best - self.median[profile])


@dataclass(frozen=True, slots=True)
class Job:
    """One method on one table, over some seeds."""

    table: Path
    null: str | None
    method: str
    seeds: tuple[int, ...]


def main() -> None:
    """Replay, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--grids", type=Path, default=Path(__file__).with_name("grids"))
    parser.add_argument("--methods", default=",".join(METHODS), help="some of them, by comma")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    parser.add_argument("--nulls", action="store_true", help="also on tables made to mislead")
    arguments = parser.parse_args()
    tables = sorted(arguments.grids.glob("*.json.gz"))
    if not tables:
        parser.error(f"--grids must hold recorded tables, but got {arguments.grids}; record one")
    document = facts(this_device()) | run_all(
        tables,
        chosen_methods(parser, arguments.methods),
        seeds=3 if arguments.quick else arguments.seeds,
        nulls=tuple(NULLS) if arguments.nulls else (),
    )
    deliver(document, in_words(document), arguments)


def chosen_methods(parser: argparse.ArgumentParser, names: str) -> list[str]:
    """Return the methods that were asked for."""
    wanted = names.split(",")
    if unknown := [name for name in wanted if name not in METHODS]:
        parser.error(f"--methods must be of {', '.join(METHODS)}, but got {', '.join(unknown)}")
    return wanted


def run_all(
    tables: Sequence[Path], methods: Sequence[str], *, seeds: int, nulls: Sequence[str]
) -> dict[str, Any]:
    """Return what every method comes to on every table, and over all of them."""
    kinds = [None, *nulls]
    chunks = [tuple(range(seeds))[i::4] for i in range(min(4, seeds))]
    jobs = [
        Job(table, null, method, chunk)
        for table, null, method, chunk in itertools.product(tables, kinds, methods, chunks)
    ]
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor() as pool:
        for job, found in zip(jobs, pool.map(run_job, jobs), strict=True):
            name = job.table.name.removesuffix(".json.gz") + (f" ({job.null})" if job.null else "")
            results.setdefault((name, job.method), []).extend(found)
            say(f"{name}, {job.method}: {len(results[name, job.method])} of {seeds} seeds")
    by_table: dict[str, Any] = {}
    for (name, method), found in results.items():
        by_table.setdefault(name, {})[method] = summary(found, results.get((name, "random"), []))
    real = [name for name in by_table if "(" not in name]
    over_all = {
        method: summary(
            [row for name in real for row in results[name, method]],
            [row for name in real for row in results.get((name, "random"), [])],
        )
        for method in methods
    }
    judged = {table.name.removesuffix(".json.gz"): noise_of(read_grid(table)) for table in tables}
    return {"seeds": seeds, "noise": judged, "tables": by_table, "methods": over_all}


def noise_of(grid: Grid) -> dict[str, Any]:
    """Return what a table can tell of `balanced`: how its halves agree, and who is good enough.

    `agreement` is Spearman's rank correlation of the composite between the halves; `good` counts
    the configs whose regret is at most `GOOD`, None where all are tied.
    """
    searched, judging = halves(grid)
    judge = Judge.of(searched, judging)
    first = worths(searched, METHODS["grid"])["balanced"].figures
    other = judge.worths["balanced"].figures
    shared = [config for config in first if config in other]
    ranks = spearmanr([first[c] for c in shared], [other[c] for c in shared])
    regrets = [judge.regret("balanced", config) for config in other]
    return {
        "configs": len(searched.rows),
        "agreement": float(ranks.statistic),
        "good": None
        if None in regrets
        else sum(regret is not None and regret <= GOOD for regret in regrets),
    }


def run_job(job: Job) -> list[dict[str, Any]]:
    """Return one document for each seed: regrets by budget and profile, and the way there."""
    grid = read_grid(job.table)
    if job.null is not None:
        grid = NULLS[job.null](grid, 0)
    searched, judging = halves(grid)
    judge = Judge.of(searched, judging)
    return [run_seed(job, searched, judge, seed) for seed in job.seeds]


def run_seed(job: Job, searched: Half, judge: Judge, seed: int) -> dict[str, Any]:
    """Replay one seed at every budget."""
    method, one_pass_s = METHODS[job.method], searched.one_pass_s
    regrets, trials = {}, {}
    for share in SHARES:
        found = replay(searched, method, seed=seed, budget_s=share * one_pass_s)
        regrets[str(share)] = {name: judge.regret(name, found.chosen[name]) for name in PROFILES}
        trials[str(share)] = found.trials
    whole = replay(searched, method, seed=seed, budget_s=LONGEST * one_pass_s, traced=True)
    path = [(at_s / one_pass_s, judge.regret("balanced", c)) for at_s, c in whole.trace]
    return {
        "seed": seed,
        "configs": len(searched.rows),
        "regrets": regrets,
        "trials": trials,
        "share_to_near": next((at for at, r in path if r is not None and r <= NEAR), None),
        "path": [regret_at(path, share) for share in times()],
        "ooms": whole.ooms,
        "device_s": one_pass_s,
    }


def times() -> list[float]:
    """Return the shares of a table's device-seconds at which searches are compared."""
    return [max(SHARES) * (i + 1) / POINTS for i in range(POINTS)]


def regret_at(path: Sequence[tuple[float, float | None]], share: float) -> float | None:
    """Return the regret of what would have been exported then; None before the baseline."""
    before = [regret for at, regret in path if at <= share]
    return before[-1] if before else None


def summary(found: Sequence[dict[str, Any]], random: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one method over seeds (and tables)."""
    document: dict[str, Any] = {
        "replays": len(found),
        "trials": {
            share: statistics.fmean(row["trials"][share] for row in found)
            for share in map(str, SHARES)
        },
    }
    for profile in PROFILES:
        known = {
            share: [v for r in found if (v := r["regrets"][share][profile]) is not None]
            for share in map(str, SHARES)
        }
        document[profile] = {
            share: None
            if not regrets
            else {
                "mean_regret": mean_of(regrets),
                "median_regret": statistics.median(regrets),
                "success_rate": statistics.fmean(regret <= GOOD for regret in regrets),
            }
            for share, regrets in known.items()
        }
    reached = sorted(r["share_to_near"] for r in found if r["share_to_near"] is not None)
    document["share_to_5pct"] = {
        "median": _rank(reached, 0.5, len(found)),
        "p90": _rank(reached, 0.9, len(found)),
        "never": len(found) - len(reached),
    }
    document["p_score"] = p_score(found, random)
    document["ooms"] = sum(r["ooms"] for r in found)
    return document


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """Return the mean with its 95 % bootstrap interval."""
    value = statistics.fmean(values)
    if len(set(values)) < 2:
        return {"value": value, "lower": value, "upper": value}
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=0)
    bounds = found.confidence_interval
    return {"value": value, "lower": float(bounds.low), "upper": float(bounds.high)}


def p_score(found: Sequence[dict[str, Any]], random: Sequence[dict[str, Any]]) -> float | None:
    """Return how far a search is from random (0) to the optimum at once (1), over time."""
    gains = []
    for index in range(POINTS):
        ours = [r["path"][index] for r in found if r["path"][index] is not None]
        theirs = [r["path"][index] for r in random if r["path"][index] is not None]
        if ours and theirs and (mean := statistics.fmean(theirs)) > 0:
            gains.append((mean - statistics.fmean(ours)) / mean)
    return statistics.fmean(gains) if gains else None


def in_words(document: dict[str, Any]) -> str:
    """Return the table of all methods."""
    lines = [
        f"{len(document['tables'])} tables, {document['seeds']} seeds each; `balanced`, normalised "
        "regret (0: as an exhaustive search, 1: the median config)",
        f"{'method':20s} " + " ".join(f"{f'at {share:.0%}':>18s}" for share in SHARES)
        + f" {'within 10 %':>12s} {'to 5 %':>8s} {'P':>6s} {'OOM':>4s} {'trials':>7s}",
    ]  # fmt: skip
    for method, found in document["methods"].items():
        cells = []
        for share in map(str, SHARES):
            at = found["balanced"][share]
            cells.append("tied" if at is None else _interval(at["mean_regret"]))
        last = found["balanced"][str(SHARES[-1])]
        success = "" if last is None else f"{last['success_rate']:.0%}"
        median = found["share_to_5pct"]["median"]
        lines.append(
            f"{method:20s} " + " ".join(f"{cell:>18s}" for cell in cells)
            + f" {success:>12s} {'never' if median is None else f'{median:.1%}':>8s}"
            + f" {_number(found['p_score']):>6s} {found['ooms']:4d}"
            + f" {found['trials'][str(SHARES[-1])]:7.1f}"
        )  # fmt: skip
    lines.append(f"within 10 % and trials, the baseline among them: at {SHARES[-1]:.0%}")
    for name, told in document["noise"].items():
        good = "all tied" if told["good"] is None else f"{told['good']} within 10 % of the best"
        lines.append(
            f"{name}: {told['configs']} configs, {good}; its halves rank them alike by "
            f"{told['agreement']:.2f} (Spearman)"
        )
    return "\n".join(lines)


def _rank(ordered: Sequence[float], share: float, number: int) -> float | None:
    """Return a quantile of `number` values of which only the lowest are known."""
    index = min(number - 1, int(share * number))
    return ordered[index] if index < len(ordered) else None


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.2f} [{estimate['lower']:.2f},{estimate['upper']:.2f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
