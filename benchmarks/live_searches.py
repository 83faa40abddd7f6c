"""Does the way to search that replays favour find better profiles in real studies, too?

    .venv/bin/python benchmarks/live_searches.py --out benchmarks/results/<device>
    .venv/bin/python benchmarks/live_searches.py --quick      one seed, two minutes each

For every seed each sampler searches as a user would let it: `tuner start` with the same budget, in
turns, each study with an empty cache of programs. Then every config that became a `balanced`
profile, and the baseline, is measured again several times, in turns and with fresh seeds, and all
are judged on one scale: what a study says of its own choice is not asked. On a CPU `structured`
expects what recorded tables of `stress`, too, came to: how it fares where they did not is told by
`structured_left_out` in `replay.py`.
"""

import argparse
import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid import Grid, Row
from laboratory import Laboratory
from ppo_document import deliver, facts, parser_of, say, this_device
from record_grid import chance
from replay_half import halves
from replay_judge import judged
from replay_methods import METHODS

from storage.profile_files import load_profile
from tuner.aggregate import ConfigSummary, summarise
from tuner.config import StudyConfig
from tuner.finalists import tie_width
from tuner.settings import load_config
from tuner.space import DIMENSIONS, HardwareConfig

SAMPLERS = ("structured", "tpe", "random")
SEEDS = 3
BUDGET = "3m"
REPEATS = 4
"""Measurements that judge a config."""
SETTINGS: dict[str, object] = {"env": "stress", "env_steps": "262144"}
FIRST_SEED = 1_000
"""Of the measurements that judge: no study trains with it."""
EXPORTED, REFUSED = 0, 7


@dataclass(frozen=True, slots=True)
class Found:
    """What one study came to: its `balanced` config, the baseline where nothing was exported."""

    sampler: str
    seed: int
    config: HardwareConfig
    is_exported: bool
    trials: int


def main() -> None:
    """Search, judge, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    parser.add_argument("--budget", default=BUDGET, help=f"of each study, default: {BUDGET}")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default: {REPEATS}")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.budget, arguments.repeats = 1, "2m", 2
    document = facts(this_device()) | run_all(arguments)
    deliver(document, in_words(document), arguments)


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was found and what it is worth."""
    with Laboratory() as laboratory:
        config = load_config(SETTINGS, {}).resolved(laboratory.kind)
    if config.baseline is None:
        raise ValueError("a study must have a baseline")
    found = []
    for seed in range(arguments.seeds):
        turn = SAMPLERS[seed % len(SAMPLERS) :] + SAMPLERS[: seed % len(SAMPLERS)]
        for sampler in turn:
            found.append(search(sampler, seed, budget=arguments.budget, baseline=config.baseline))
            say(f"found {found[-1]}")
    configs = sorted({config.baseline, *(f.config for f in found)})
    summaries, tie = measured_again(config, configs, arguments.repeats)
    worth = {summary.config: summary for summary in summaries}
    return {
        "tie": tie,
        "settings": {**SETTINGS, "budget": arguments.budget, "repeats": arguments.repeats},
        "baseline": of_config(worth[config.baseline]),
        "searches": [
            {
                "sampler": f.sampler,
                "seed": f.seed,
                "trials": f.trials,
                "is_exported": f.is_exported,
                **of_config(worth[f.config]),
            }
            for f in found
        ],
    }


def search(sampler: str, seed: int, *, budget: str, baseline: HardwareConfig) -> Found:
    """Run one study as a user would, with nothing compiled before."""
    say(f"{sampler}, seed {seed}: a study of {budget}")
    with tempfile.TemporaryDirectory() as folder:
        flags = {**SETTINGS, "budget": budget, "sampler": sampler, "seed": seed}
        words = [w for k, v in flags.items() for w in (f"--{k.replace('_', '-')}", str(v))]
        places = ["--runs-dir", f"{folder}/runs", "--cache-dir", f"{folder}/cache"]
        tuner = Path(sys.executable).with_name("tuner")
        ended = subprocess.run(
            [tuner, "start", "live", *words, *places], capture_output=True, text=True, check=False
        )
        if ended.returncode not in (EXPORTED, REFUSED):
            raise SystemExit(f"tuner start must end well, but got: {ended.stderr[-2000:]}")
        asked = subprocess.run(
            [tuner, "status", "live", "--json", *places[:2]],
            capture_output=True,
            text=True,
            check=True,
        )
        trials = json.loads(asked.stdout)["statuses"].get("success", 0)
        if ended.returncode == REFUSED:
            return Found(sampler, seed, baseline, is_exported=False, trials=trials)
        profile = load_profile(Path(folder) / "runs" / "live" / "profiles" / "balanced.yaml")
        config = HardwareConfig(*(getattr(profile, name) for name in DIMENSIONS))
        return Found(sampler, seed, config, is_exported=True, trials=trials)


def measured_again(
    config: StudyConfig, configs: Sequence[HardwareConfig], repeats: int
) -> tuple[list[ConfigSummary], float | None]:
    """Return what configs are worth beside each other, from fresh measurements in turns.

    And the width of a tie between their scores.
    """
    if config.baseline is None:
        raise ValueError("what is judged must have a baseline")
    env_steps, order, rows = int(str(SETTINGS["env_steps"])), random.Random(0), []
    with Laboratory() as laboratory:
        told = {
            **laboratory.facts(),
            "settings": SETTINGS
            | {"baseline": ",".join(map(str, config.baseline.params().values()))},
            "env_steps": env_steps,
            "chance": chance(laboratory, config),
        }
        for repeat in range(repeats):
            for hardware in order.sample(configs, len(configs)):
                seed = FIRST_SEED + 2 * repeat  # even: a table's half that is searched
                measurement = laboratory.measure(config, hardware, env_steps=env_steps, seed=seed)
                rows.append(Row.of(measurement))
    searched, _ = halves(Grid(told, tuple(rows)))
    records, _, _ = judged(searched, METHODS["grid"])
    return summarise(records, with_intervals=False), tie_width(records)


def of_config(summary: ConfigSummary) -> dict[str, Any]:
    """Return what a reader wants to know of a config."""
    return {
        "config": str(summary.config),
        "final_score": summary.final_score,
        "quality_score": summary.quality_score,
        "sps": summary.sps,
        "device_util": summary.device_util,
        "measurements": summary.replicates,
    }


def in_words(document: dict[str, Any]) -> str:
    """Return the table that a reader wants."""
    settings, baseline = document["settings"], document["baseline"]
    lines = [
        f"`balanced` of studies of {settings['budget']} each, then measured {settings['repeats']} "
        f"times beside each other; {settings['env']}, {settings['env_steps']} env-steps each; "
        + (
            "how wide a tie is is not known"
            if document["tie"] is None
            else f"such means within {document['tie'] * tie_of_means(settings['repeats']):.3f} "
            "are tied"
        ),
        f"{'sampler':12s} {'seed':>4s} {'trials':>6s}  {'config':22s} {'score':>6s} "
        f"{'quality':>7s} {'env-steps/s':>12s} {'util %':>6s}",
        f"{'(baseline)':12s} {'':4s} {'':6s}  " + _row(baseline),
    ]
    by_sampler: dict[str, list[dict[str, Any]]] = {}
    for row in document["searches"]:
        by_sampler.setdefault(row["sampler"], []).append(row)
        lines.append(
            f"{row['sampler']:12s} {row['seed']:4d} {row['trials']:6d}  " + _row(row)
            + ("" if row["is_exported"] else "  (nothing exported)")
        )  # fmt: skip
    for sampler, rows in by_sampler.items():
        scores = [row["final_score"] or 0.0 for row in rows]
        lines.append(
            f"{sampler}: score {statistics.fmean(scores):.3f} on average, "
            f"{min(scores):.3f} to {max(scores):.3f} over {len(scores)} seeds; configs "
            f"chosen: {len({row['config'] for row in rows})}"
        )
    return "\n".join(lines)


def tie_of_means(repeats: int) -> float:
    """Return how many ε two means of so many scores must differ by to be told apart."""
    return math.sqrt(2 / repeats)


def _row(row: dict[str, Any]) -> str:
    return (
        f"{row['config']:22s} {row['final_score'] or 0.0:6.3f} {row['quality_score'] or 0.0:7.3f} "
        f"{row['sps'] or 0.0:12,.0f} {row['device_util'] or 0.0:6.1f}"
    )


if __name__ == "__main__":
    main()
