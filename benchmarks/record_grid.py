"""Measures every config of a space several times, for searches to be replayed on.

    .venv/bin/python benchmarks/record_grid.py stress --out benchmarks/grids
    .venv/bin/python benchmarks/record_grid.py --quick          four configs, twice or more

Every measurement is a trial on the bench, in a process of its own, exactly as in a study. A
recording that was stopped goes on where it was: run the same command again; a finished one goes on
with more `--repeats`. Nothing else should run beside it; what did is told by the steal and the load
in each row, and `--redo-disturbed` measures such rows, and crashed ones, once more.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from grid import SUFFIX, VERSION, Recording, Row, read_grid, reopen, write_grid
from laboratory import Laboratory

from tuner.config import StudyConfig
from tuner.errors import TunerError
from tuner.protocol import RandomRequest
from tuner.settings import load_config
from tuner.space import HardwareConfig

SPACE_OF_64: dict[str, object] = {
    "num_envs": "8,32,128,512",
    "num_steps": "16,32,64,128",
    "num_minibatches": "2,8",
    "num_epochs": "2,4",
    "baseline": "128,64,8,4",
}
GRIDS: dict[str, dict[str, object]] = {
    "stress": {"env": "stress", **SPACE_OF_64},
    "stress-168": {"env": "stress"},
    "cartpole": {"env": "gymnax:CartPole-v1", "learning_rate": "1e-3", **SPACE_OF_64},
    "acrobot": {
        "env": "gymnax:Acrobot-v1",
        "learning_rate": "1e-3",
        "normalize_obs": True,
        **SPACE_OF_64,
    },
    "pendulum": {
        "env": "gymnax:Pendulum-v1",
        "learning_rate": "1e-3",
        "normalize_obs": True,
        "normalize_reward": True,
        **SPACE_OF_64,
    },
    "breakout": {"env": "gymnax:Breakout-MinAtar", "learning_rate": "1e-3", **SPACE_OF_64},
    "trading-phase1": {"env": "trading-phase1", "learning_rate": "1e-3", **SPACE_OF_64},
}
"""Settings of each table, as in a study file; `stress-168` has the whole space of a CPU. Acrobot is
normalised as rejax's hyperparameters have it, Pendulum as our documentation."""
ADAM_EPS = 1e-5
"""Adam's ε in every table, whatever a study's is: it was this when the first ones were recorded."""
QUICK: dict[str, object] = {
    "env": "stress",
    "env_params": {"obs_dim": 8},
    "network": "16",
    "num_envs": "8,16",
    "num_steps": "16,32",
    "num_minibatches": "2",
    "num_epochs": "2",
    "baseline": "16,16,2,2",
    "env_steps": "16384",
}
REPEATS = 4
BASELINE_REPEATS = 6
"""The baseline's: three in each half of a table, from which its spread is known as in a study."""
CHEAP_S = 20.0
"""A config that takes longer than this, but for compiling, is measured twice only."""
SEEDS_OF_CHANCE = (0, 1, 2)


def main() -> None:
    """Record one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", choices=sorted(GRIDS), default="stress")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"default: {REPEATS}")
    parser.add_argument("--env-steps", help="that every trial trains for, as in a study")
    parser.add_argument(
        "--redo-disturbed", action="store_true", help="measure again what something disturbed"
    )
    parser.add_argument("--quick", action="store_true", help="about a minute on two cores")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, help="folder of the table, made as it is recorded")
    arguments = parser.parse_args()
    name = "quick" if arguments.quick else arguments.name
    settings = dict(QUICK if arguments.quick else GRIDS[name])
    if arguments.env_steps is not None:
        settings["env_steps"] = arguments.env_steps
    repeats = 2 if arguments.quick else arguments.repeats
    folder = arguments.out or Path("runs") / "grids"
    try:
        document = record(
            folder, name, settings, repeats=repeats, redo_disturbed=arguments.redo_disturbed
        )
    except (TunerError, ValueError) as error:
        raise SystemExit(f"record_grid: {error}") from None
    print(json.dumps(document) if arguments.json else in_words(document))


def record(
    folder: Path,
    name: str,
    settings: dict[str, object],
    *,
    repeats: int,
    redo_disturbed: bool = False,
) -> dict[str, Any]:
    """Record what is missing of a table, write it when it is whole, and return what it holds."""
    with Laboratory() as laboratory:
        config = load_config(settings, {"adam_eps": ADAM_EPS}).resolved(laboratory.kind)
        configs = config.space().configs()
        env_steps = config.env_steps or 8 * max(c.batch_size for c in configs)
        facts = {
            "version": VERSION,
            "name": name,
            **laboratory.facts(),
            "settings": json.loads(json.dumps(settings)),
            "space": {k: list(v) for k, v in config.space().choices().items()},
            "baseline": config.baseline.params() if config.baseline else None,
            "env_steps": env_steps,
            "chance": chance(laboratory, config),
        }
        planned = order(configs, repeats, config.baseline)
        finished, begun = folder / f"{name}{SUFFIX}", folder / f"{name}.jsonl"
        if finished.exists() and not begun.exists():
            reopen(begun, read_grid(finished))
        with Recording(begun, facts) as recording:
            for number, (hardware, repeat) in enumerate(planned, start=1):
                known = recording.row(hardware, repeat)
                if known is None and hardware != config.baseline:
                    is_wanted = not is_dear(recording, hardware, repeat)
                else:
                    is_wanted = known is None or (redo_disturbed and is_to_be_redone(known))
                if not is_wanted:
                    continue
                say(f"{number} of {len(planned)}: {hardware}, repeat {repeat}")
                measurement = laboratory.try_to_measure(
                    config, hardware, env_steps=env_steps, seed=repeat
                )
                if measurement.record.status == "interrupted":
                    raise SystemExit("record_grid: stopped; run the same command to go on")
                recording.add(Row.of(measurement))
            grid = recording.grid()
        write_grid(finished, grid)
        recording.path.unlink()
    return {**grid.facts, "measurements": len(grid.rows), "file": f"{name}{SUFFIX}"}


def chance(laboratory: Laboratory, config: StudyConfig) -> dict[str, Any]:
    """Return what a study asks of the environment before its baseline."""
    request = RandomRequest(
        workload=config.workload(), seeds=SEEDS_OF_CHANCE, cache_dir=str(laboratory.cache_dir)
    )
    return laboratory.ask(request)


def order(
    configs: list[HardwareConfig], repeats: int, baseline: HardwareConfig | None
) -> list[tuple[HardwareConfig, int]]:
    """Return all measurements: every config once before any twice, each time in another order.

    What a machine's speed wanders in an hour is so spread over all configs.
    """
    shuffled = random.Random(0)
    planned = []
    for repeat in range(repeats):
        planned += [(c, repeat) for c in shuffled.sample(configs, len(configs))]
    if baseline in configs:
        planned += [(baseline, repeat) for repeat in range(repeats, BASELINE_REPEATS)]
    return planned


def is_disturbed(row: Row) -> bool:
    """Whether something else took the device from a measurement that succeeded."""
    return row.record.status == "success" and row.record.contaminated is not None


def is_to_be_redone(row: Row) -> bool:
    """Whether `--redo-disturbed` measures a row again: what crashed says nothing of its config."""
    return is_disturbed(row) or row.record.status == "crashed"


def is_dear(recording: Recording, hardware: HardwareConfig, repeat: int) -> bool:
    """Whether a config took too long, the first two times, to be measured more often."""
    known = [row for i in range(min(repeat, 2)) if (row := recording.row(hardware, i)) is not None]
    if repeat < 2 or not known:
        return False
    rows = [row for row in known if not is_disturbed(row)] or known
    took_s = min((r.record.duration or 0.0) - r.record.phases.get("compile", 0.0) for r in rows)
    return took_s > CHEAP_S


def in_words(document: dict[str, Any]) -> str:
    """Return what was recorded, in two lines."""
    device = document["device"]["name"]
    return (
        f"{document['file']}: {document['measurements']} measurements of "
        f"{document['env_steps']:,} env-steps on {device}\n$ {document['command']}"
    )


def say(line: str) -> None:
    """Tell whoever waits what is being done."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
