"""What an option of PPO changes of learning, in the environments of the recorded tables.

    .venv/bin/python benchmarks/ppo_options.py             10 seeds each: half an hour
    .venv/bin/python benchmarks/ppo_options.py --quick     CartPole, 3 seeds
    .venv/bin/python benchmarks/ppo_options.py --only pendulum

A training is that of a study's baseline: the settings of `record_grid.py`, Pendulum also with raw
rewards, the four numbers of its baseline and as many env-steps. What counts is what the policies at
four points of it return above chance, as in a study's quality, beside the same with ε = 1e-5 in
Adam and no clip of the value loss. Options share their seeds; the bootstrap intervals of their
interquartile means (arXiv 2108.13264) take them for independent. Breakout, the slowest, is left
out.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import jax
from ppo_document import deliver, facts, parser_of, say, this_device
from ppo_statistics import bootstrap, bootstrap_relative
from record_grid import GRIDS, SEEDS_OF_CHANCE

from tuner.child.evaluation import NUM_ENVS, evaluate_random
from tuner.child.program import Built, build
from tuner.ppo.evaluate import make_evaluate
from tuner.settings import load_config
from tuner.space import HardwareConfig

FIRST: dict[str, object] = {"adam_eps": 1e-5, "clip_value_loss": False}
OPTIONS: dict[str, dict[str, object]] = {
    "ε 1e-5": FIRST,
    "ε 1e-8": FIRST | {"adam_eps": 1e-8},
    "ε 1e-8, clipped": {"adam_eps": 1e-8, "clip_value_loss": True},
}
"""What each row trains with; the first is what the others are held against."""
HARDWARE = HardwareConfig(num_envs=128, num_steps=64, num_minibatches=8, num_epochs=4)
POINTS, UPDATES_OF_POINT = 4, 16
ENV_STEPS = POINTS * UPDATES_OF_POINT * HARDWARE.batch_size
SEEDS, QUICK_SEEDS = 10, 3
TASKS = {
    "cartpole": GRIDS["cartpole"],
    "acrobot": GRIDS["acrobot"],
    "pendulum": GRIDS["pendulum"],
    "pendulum-raw": GRIDS["pendulum"] | {"normalize_reward": False},
    "stress": GRIDS["stress"],
    "trading-phase1": GRIDS["trading-phase1"],
}


def main() -> None:
    """Train, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--only", action="append", choices=sorted(TASKS), help="(default: all)")
    parser.add_argument("--seeds", type=int, help="seeds of each environment")
    arguments = parser.parse_args()
    names = arguments.only or (["cartpole"] if arguments.quick else list(TASKS))
    seeds = arguments.seeds or (QUICK_SEEDS if arguments.quick else SEEDS)
    document = facts(this_device()) | {
        "hardware": HARDWARE.as_dict(),
        "env_steps": ENV_STEPS,
        "options": OPTIONS,
        "environments": {name: compare(name, seeds) for name in names},
    }
    deliver(document, table_of(document), arguments)


def compare(name: str, num_seeds: int) -> dict[str, Any]:
    """Return what every option comes to in an environment."""
    chance, first = math.nan, list[float]()
    rows: dict[str, Any] = {}
    for option, settings in OPTIONS.items():
        workload = load_config(TASKS[name] | settings, {}).resolved("cpu").workload()
        built = build(workload, HARDWARE.as_dict(), env_steps=ENV_STEPS)
        train, returns = trainer(built), []
        for seed in range(num_seeds):
            returns.append(float(train(jax.random.key(seed))))
            say(f"{name}, {option}, seed {seed}: {returns[-1]:.4g}")
        if not first:
            known = [evaluate_random(built.env, built.env_params, s) for s in SEEDS_OF_CHANCE]
            chance = statistics.fmean(value for value in known if value is not None)
        above = [value - chance for value in returns]
        first = first or above
        group, ratio = bootstrap(returns), bootstrap_relative(above, first)
        rows[option] = {
            "returns": returns,
            "iqm": group.value,
            "iqm_ci95": [group.lower, group.upper],
            "ratio": ratio.value,
            "ratio_ci95": [ratio.lower, ratio.upper],
        }
    return {"settings": TASKS[name], "seeds": num_seeds, "chance": chance, "options": rows}


def trainer(built: Built) -> Callable[[jax.Array], jax.Array]:
    """Return a compiled training: by its key, the mean return [] of its policies."""
    if built.policy_fn is None:
        raise ValueError("a trainer of the user's has no options of PPO")
    evaluate = make_evaluate(built.env, built.policy_fn, num_envs=NUM_ENVS)

    def train(key: jax.Array) -> jax.Array:
        train_key, eval_key = jax.random.split(key)

        def go_on(carry: Any, _: None) -> tuple[Any, jax.Array]:
            carry = jax.lax.fori_loop(
                0, UPDATES_OF_POINT, lambda _, carry: built.update_fn(carry)[0], carry
            )
            return carry, evaluate(built.actor_of(carry), eval_key, built.env_params).total.mean()

        return jax.lax.scan(go_on, built.init(train_key), length=POINTS)[1].mean()

    return jax.jit(train)


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    lines = [
        "interquartile mean of seeds' returns [95 % interval], and that above chance over the same "
        f"of {next(iter(OPTIONS))}",
        f"{'environment':<16}{'seeds':>6}{'chance':>10}  {'option':<16}{'return':>28}{'ratio':>20}",
    ]
    for name, found in document["environments"].items():
        for option, row in found["options"].items():
            group = _interval(row["iqm"], row["iqm_ci95"], ".4g")
            ratio = _interval(row["ratio"], row["ratio_ci95"], ".2f")
            lines.append(
                f"{name:<16}{found['seeds']:>6}{found['chance']:>10.4g}  "
                f"{option:<16}{group:>28}{ratio:>20}"
            )
    return "\n".join(lines)


def _interval(value: float, bounds: list[float], form: str) -> str:
    return f"{value:{form}} [{bounds[0]:{form}}, {bounds[1]:{form}}]"


if __name__ == "__main__":
    main()
