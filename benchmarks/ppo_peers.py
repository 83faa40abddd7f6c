"""How fast our PPO is beside rejax's and brax's: same environment, same network, in turns.

    .venv/bin/python benchmarks/ppo_peers.py                          about 15 minutes on a CPU
    .venv/bin/python benchmarks/ppo_peers.py --quick                  fewer configs and rounds
    .venv/bin/python benchmarks/ppo_peers.py --peer package.module:factory    one more (peer.py)
    .venv/bin/python benchmarks/ppo_peers.py --tree ../before    what a change of ours has gained

Every peer is a process of its own for every config. It imports, compiles once, and then answers
"run one round" requests; the peers take turns round by round, so that whatever slows the machine
down slows them all. On a CPU all are pinned to one core, and the rate that counts is env-steps per
CPU-second of the peer's process; on a GPU it is env-steps per second of wall-clock.
"""

import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from peer import PeerConfig
from peer_process import ROOT, PeerFailed, PeerProcess, Round
from ppo_document import deliver, facts, parser_of, say, this_device
from ppo_statistics import best_of, round_ratios, spread_of

Clock = Literal["cpu_s", "wall_s"]
Numbers = tuple[int, int, int, int]

OURS = "ours"
SPECS = {OURS: "peer_ours:Ours", "rejax": "peer_rejax:Rejax", "brax": "peer_brax:Brax"}
CPU_CONFIGS: tuple[Numbers, ...] = (
    (4, 128, 4, 4),
    (64, 128, 4, 4),
    (512, 128, 4, 4),
    (2048, 128, 8, 4),
    (2048, 32, 4, 4),
)
GPU_CONFIGS: tuple[Numbers, ...] = (*CPU_CONFIGS, (4096, 128, 8, 4), (16384, 128, 16, 4))
QUICK_CONFIGS: tuple[Numbers, ...] = ((64, 128, 4, 4),)
ROUNDS, QUICK_ROUNDS = 15, 5
NO_TREES: Mapping[str, Path] = MappingProxyType({})
ROUND_ENV_STEPS = {"cpu": 2**15, "gpu": 2**22}
"""About a third of a second of training on either: fine enough to alternate within disturbances."""

DIFFERENCES = {
    "ours": (
        "one Adam over policy and value, clipped by global norm; rows shuffled; truncation "
        "bootstraps from the final observation; value loss not clipped; metrics of every update "
        "are computed and reduced"
    ),
    "rejax": (
        "two Adams, gradients clipped element-wise; rows shuffled by jax.random.permutation; value "
        "loss clipped; truncation treated as an ending; no learning-rate schedule; no metrics; "
        "step resets every environment and selects; `done` merged from gymnax's two flags by a "
        "wrapper"
    ),
    "brax": (
        "whole trajectories shuffled, not rows; advantages computed anew in every minibatch from "
        "present values, and no values in the rollout; tanh-normal action whose sign chooses "
        "CartPole's direction, since brax has no discrete actions; an episode restarts from the "
        "state its environment first started from; a step that a time limit cuts has no advantage; "
        "value loss not clipped; train() compiles "
        "twice, and its two first epochs are taken off at the measured rate; the function "
        "jax.device_put_replicated, which jax 0.10 removed and it calls, is stood in for"
    ),
}


@dataclass(frozen=True, slots=True)
class Timed:
    """One peer on one config: what compiling took, and its rounds."""

    compiled: Round
    rounds: list[Round]

    def rates(self, clock: Clock) -> list[float]:
        """Return env-steps per second of `clock`, round by round."""
        return [done.env_steps / getattr(done, clock) for done in self.rounds]

    def summary(self, clock: Clock) -> dict[str, float]:
        """Return rates and compile times by the names of the document."""
        spread = spread_of(self.rates(clock))
        cpu, wall = (statistics.median(self.rates(name)) for name in ("cpu_s", "wall_s"))
        trained = self.compiled.env_steps
        return {
            "sps": spread.median,
            "sps_lower_quartile": spread.lower,
            "sps_upper_quartile": spread.upper,
            "sps_per_cpu_s": cpu,
            "sps_wall": wall,
            "compile_s": self.compiled.wall_s - trained / wall,
            "compile_cpu_s": self.compiled.cpu_s - trained / cpu,
        }


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--peer", action="append", default=[], metavar="MODULE:FACTORY")
    parser.add_argument(
        "--tree",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="another checkout of this project (git worktree add), in place of the peers",
    )
    parser.add_argument("--rounds", type=int, help=f"rounds per config (default: {ROUNDS})")
    arguments = parser.parse_args()
    device = this_device()
    try:
        trees = named_trees(arguments.tree)
    except ValueError as error:
        parser.error(str(error))
    peers = dict.fromkeys(trees, SPECS[OURS]) if trees else SPECS
    specs = {OURS: SPECS[OURS]} | peers | {spec: spec for spec in arguments.peer}
    configs = GPU_CONFIGS if device.kind == "gpu" else CPU_CONFIGS
    if arguments.quick:
        configs = QUICK_CONFIGS
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    core = max(os.sched_getaffinity(0)) if device.kind == "cpu" else None
    clock: Clock = "cpu_s" if device.kind == "cpu" else "wall_s"
    rows = [
        compare(
            config_of(numbers, device.kind),
            specs,
            rounds=rounds,
            core=core,
            clock=clock,
            trees=trees,
        )
        for numbers in configs
    ]
    ratios = [row["ratio_to_best"] for row in rows if row["ratio_to_best"] is not None]
    document = facts(device) | {
        "clock": clock,
        "pinned_to_core": core,
        "rounds": rounds,
        "differences": {name: text for name, text in DIFFERENCES.items() if name in specs},
        "configs": rows,
        "geomean_ratio": statistics.geometric_mean(ratios) if ratios else None,
    }
    deliver(document, table_of(document), arguments)


def named_trees(folders: Sequence[Path]) -> dict[str, Path]:
    """Return checkouts by the names of their folders; ValueError where these are not apart."""
    names = [folder.resolve().name for folder in folders]
    if len({OURS, *names}) <= len(names):
        raise ValueError(
            f"--tree must be folders of different names and none of them {OURS}, but got "
            f"{', '.join(names)}; rename one"
        )
    return {name: folder.resolve() for name, folder in zip(names, folders, strict=True)}


def config_of(numbers: Numbers, kind: str) -> PeerConfig:
    """Return the config of one row, with rounds of about equal length."""
    num_envs, num_steps, num_minibatches, num_epochs = numbers
    return PeerConfig(
        num_envs=num_envs,
        num_steps=num_steps,
        num_minibatches=num_minibatches,
        num_epochs=num_epochs,
        updates=max(1, ROUND_ENV_STEPS[kind] // (num_envs * num_steps)),
    )


def compare(
    config: PeerConfig,
    specs: dict[str, str],
    *,
    rounds: int,
    core: int | None,
    clock: Clock,
    trees: Mapping[str, Path] = NO_TREES,
) -> dict[str, Any]:
    """Return one row of the document: every peer on one config.

    Raises:
        PeerFailed: Ours failed. A peer that fails is left out, with the reason in its place.
    """
    timed, failures = alternate(config, specs, rounds=rounds, core=core, trees=trees)
    ours = timed.pop(OURS)
    best = best_of({name: peer.rates(clock) for name, peer in timed.items()}) if timed else None
    ratio = spread_of(round_ratios(ours.rates(clock), timed[best].rates(clock))) if best else None
    mine = ours.summary(clock)
    return config.sizes | {
        "updates_per_round": config.updates,
        "ours_sps": mine["sps"],
        "ours": mine,
        "peers": {name: peer.summary(clock) for name, peer in timed.items()}
        | {name: {"error": reason} for name, reason in failures.items()},
        "best_peer": best,
        "ratio_to_best": None if ratio is None else ratio.median,
        "ratio_quartiles": None if ratio is None else [ratio.lower, ratio.upper],
        "wall_ratio_to_best": wall_ratio(mine, [p.summary(clock) for p in timed.values()]),
        "compile_ratio_to_fastest": compile_ratio(mine, [p.summary(clock) for p in timed.values()]),
    }


def wall_ratio(ours: dict[str, float], peers: list[dict[str, float]]) -> float | None:
    """Return our env-steps per second of wall-clock over those of the fastest peer, by medians."""
    fastest = max((peer["sps_wall"] for peer in peers), default=None)
    return None if fastest is None else ours["sps_wall"] / fastest


def compile_ratio(ours: dict[str, float], peers: list[dict[str, float]]) -> float | None:
    """Return our compile CPU-seconds over those of the peer that compiles fastest."""
    fastest = min((peer["compile_cpu_s"] for peer in peers), default=None)
    return None if fastest is None else ours["compile_cpu_s"] / fastest


def alternate(
    config: PeerConfig,
    specs: dict[str, str],
    *,
    rounds: int,
    core: int | None,
    trees: Mapping[str, Path] = NO_TREES,
) -> tuple[dict[str, Timed], dict[str, str]]:
    """Compile every peer, then run one round of each in turn, another one first every time.

    Returns:
        What was timed by peer, and the reasons of those that failed.
    """
    failures: dict[str, str] = {}
    compiled: dict[str, Round] = {}
    done: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                PeerProcess(spec, core=core, num_peers=len(specs), root=trees.get(name, ROOT))
            )
            for name, spec in specs.items()
        }
        for name, process in processes.items():
            # All imports come first, so that nothing imports beside what is timed.
            _attempt(name, failures, process.wait_until_imported)
        for name in _alive(processes, failures):
            say(f"{config}: compiling {name}")
            result = _attempt(name, failures, lambda p=processes[name]: p.compile(config))
            if result is not None:
                compiled[name], done[name] = result, []
        for name in _alive(processes, failures):
            _attempt(name, failures, processes[name].run)  # a warm-up that does not count
        say(f"{config}: {rounds} rounds of {', '.join(_alive(processes, failures))}")
        for number in range(rounds):
            names = _alive(processes, failures)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                result = _attempt(name, failures, processes[name].run)
                if result is not None:
                    done[name].append(result)
    timed = {name: Timed(compiled[name], done[name]) for name in _alive(processes, failures)}
    return timed, failures


def _alive(processes: dict[str, PeerProcess], failures: dict[str, str]) -> list[str]:
    return [name for name in processes if name not in failures]


def _attempt(name: str, failures: dict[str, str], ask: Any) -> Any:
    try:
        return ask()
    except PeerFailed as error:
        if name == OURS:
            raise
        failures[name] = str(error)
        say(f"leaving {name} out: {error}")
        return None


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    unit = "CPU-second" if document["clock"] == "cpu_s" else "second"
    names = list(dict.fromkeys(name for row in document["configs"] for name in row["peers"]))
    lines = [
        f"env-steps per {unit}, median of {document['rounds']} rounds; compile in CPU-seconds",
        f"{'config':>20}{'ours':>12}"
        + "".join(f"{name[-12:]:>14}" for name in names)
        + f"{'ratio':>8}{'quartiles':>14}{'by wall':>9}   compile: ours, {', '.join(names)}; "
        "ours over the fastest",
    ]
    for row in document["configs"]:
        peers = [row["peers"][name] for name in names]
        numbers = [row[key] for key in ("num_envs", "num_steps", "num_minibatches", "num_epochs")]
        quartiles = row["ratio_quartiles"]
        lines.append(
            f"{','.join(map(str, numbers)):>20}{row['ours_sps']:>12,.0f}"
            + "".join(f"{_number(peer.get('sps'), ',.0f'):>14}" for peer in peers)
            + f"{_number(row['ratio_to_best'], '.2f'):>8}"
            + f"{'–'.join(f'{q:.2f}' for q in quartiles) if quartiles else '':>14}"
            + f"{_number(row['wall_ratio_to_best'], '.2f'):>9}   "
            + ", ".join(_number(peer.get("compile_cpu_s"), ".1f") for peer in (row["ours"], *peers))
            + f"; {_number(row['compile_ratio_to_fastest'], '.2f')}"
        )
    geomean = _number(document["geomean_ratio"], ".2f")
    lines += [
        f"{name} failed at {row['num_envs']},{row['num_steps']}: {peer['error']}"
        for row in document["configs"]
        for name, peer in row["peers"].items()
        if "error" in peer
    ]
    lines += [f"geometric mean of the ratios to the best peer of each config: {geomean}", ""]
    lines += [f"{name}: {text}" for name, text in document["differences"].items()]
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


if __name__ == "__main__":
    main()
