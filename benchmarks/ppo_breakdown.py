"""Where the time of one PPO update goes, and how far that is from the least it could take.

    .venv/bin/python benchmarks/ppo_breakdown.py                       three configs on a CPU
    .venv/bin/python benchmarks/ppo_breakdown.py --config 512,128,4,4  another one

Every part is compiled alone and run on a real rollout's arrays, as often as an update does, several
updates' worth in one program, in turns with the whole update and the bare products: the machine's
speed wanders over minutes, and the least time of each counts. What the whole update takes beyond
the sum is "rest": metrics, normalising advantages, and what the compiler does differently when the
parts stand together (less than nothing, where that is quicker). On a CPU: one pinned core,
CPU-seconds.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from ppo_document import deliver, facts, parser_of, say, this_device
from ppo_floor import copied_bytes, measure_floor, products_of
from ppo_statistics import best_seconds

from envs.base import Environment
from envs.registry import make
from tuner.child.cost import count
from tuner.child.program import block_fn
from tuner.ppo.chance import draw
from tuner.ppo.gae import gae
from tuner.ppo.loss import ppo_loss
from tuner.ppo.networks import value_of
from tuner.ppo.rollout import collect_rollout
from tuner.ppo.rows import Rows, narrow_leaves, side_by_side, with_wide_leaves
from tuner.ppo.shuffle import shuffle
from tuner.ppo.train import PPO, make_ppo
from tuner.ppo.types import Batch, Carry, Hyperparams, PPOConfig
from tuner.ppo.update import optimizer

ENV = "gymnax:CartPole-v1"
CONFIGS = {
    "cpu": ((4, 128, 4, 4), (64, 128, 4, 4), (2048, 128, 8, 4)),
    "gpu": ((2048, 128, 8, 4), (16384, 128, 16, 4)),
}
BUDGET_S, QUICK_BUDGET_S = 3.0, 0.5
"""How long a part is repeated in all; the least time of its repetitions counts."""
TURNS = 5
ROWS = 65_536
"""Rows that a timed program goes through, or two updates: to start one may take a millisecond."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the update, and a program that does what `updates_of` updates do of it."""

    name: str
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One config, ready to be taken apart, and where its training stands."""

    config: PPOConfig
    env: Environment
    ppo: PPO
    carry: Carry


def main() -> None:
    """Measure, print and, if asked, write."""
    parser = parser_of(__doc__)
    parser.add_argument("--config", action="append", type=_numbers, metavar="N,N,N,N")
    arguments = parser.parse_args()
    device = this_device()
    core = max(os.sched_getaffinity(0)) if device.kind == "cpu" else None
    if core is not None:
        # Before the first computation: jax's thread pools are as large as the affinity allows then.
        os.sched_setaffinity(0, {core})
    clock = time.process_time if device.kind == "cpu" else time.perf_counter
    configs = CONFIGS[device.kind][-1:] if arguments.quick else CONFIGS[device.kind]
    budget_s = QUICK_BUDGET_S if arguments.quick else BUDGET_S
    document = facts(device) | {
        "env": ENV,
        "clock": "cpu_s" if device.kind == "cpu" else "wall_s",
        "pinned_to_core": core,
        "configs": [
            take_apart(setting_of(numbers), clock, budget_s)
            for numbers in arguments.config or configs
        ],
    }
    deliver(document, table_of(document), arguments)


def updates_of(config: PPOConfig) -> int:
    """Return how many updates, or the same part of so many, are in a timed program."""
    return max(2, ROWS // config.batch_size)


def setting_of(numbers: tuple[int, ...]) -> Setting:
    """Build PPO for four numbers."""
    num_envs, num_steps, num_minibatches, num_epochs = numbers
    config = PPOConfig(num_envs, num_steps, num_minibatches, num_epochs)
    env, env_params = make(ENV, {})
    ppo = make_ppo(config, env)
    carry = jax.jit(lambda key: ppo.init_fn(key, Hyperparams(), env_params))(jax.random.key(0))
    return Setting(config, env, ppo, carry)


def take_apart(setting: Setting, clock: Callable[[], float], budget_s: float) -> dict[str, Any]:
    """Return one row of the document: the whole update, its parts and its floor."""
    config = setting.config
    say(f"{config.num_envs}x{config.num_steps}: compiling the whole update and its parts")
    whole, carry = whole_update(setting)
    setting = replace(setting, carry=carry)
    batch, parts = parts_of(setting)
    policy_head = setting.carry.params.policy[-1]
    products = products_of(
        config,
        microbatch=setting.ppo.microbatch,
        obs_size=batch.obs[0].size,
        num_outputs=policy_head.bias.size,
    )
    copied = copied_bytes(batch, config.num_epochs)
    seconds: dict[str, float] = {}
    floors = []
    for turn in range(TURNS):
        say(f"{config.num_envs}x{config.num_steps}: turn {turn + 1} of {TURNS}")
        for part in (whole, *parts):
            least = best_seconds(part.run, clock, budget_s=budget_s / TURNS) / updates_of(config)
            seconds[part.name] = min(least, seconds.get(part.name, least))
        floors.append(
            measure_floor(products, copied=copied, clock=clock, budget_s=budget_s / 10 / TURNS)
        )
    floor = min(floors, key=lambda floor: floor["floor_s"])
    update_s = seconds.pop(whole.name)
    seconds["rest"] = update_s - sum(seconds.values())
    flops = count(jax.make_jaxpr(setting.ppo.update_fn)(setting.carry)).flops
    return {
        "num_envs": config.num_envs,
        "num_steps": config.num_steps,
        "num_minibatches": config.num_minibatches,
        "num_epochs": config.num_epochs,
        "microbatch": setting.ppo.microbatch,
        "update_s": update_s,
        "sps": config.batch_size / update_s,
        "parts_s": seconds,
        "parts_share": {name: part / update_s for name, part in seconds.items()},
        "floor": floor,
        "floor_share": floor["floor_s"] / update_s,
        "flops": flops,
        "flops_per_s": flops / update_s,
        "share_of_matmul_rate": flops / update_s / floor["matmul_flops_per_s"],
        "products_share": floor["matmul_s"] / update_s,
    }


def whole_update(setting: Setting) -> tuple[Part, Carry]:
    """Return the update within the block that a trial runs, and a carry of some updates later.

    The carry of `setting` is donated.
    """
    num_updates, held = jnp.int32(updates_of(setting.config)), setting.carry
    block = jax.jit(block_fn(setting.ppo.update_fn), donate_argnums=0)
    compiled = block.lower(held, num_updates).compile()

    def run() -> None:
        nonlocal held
        held, sums = compiled(held, num_updates)
        jax.block_until_ready((held, sums))

    run()
    return Part("update", run), jax.tree.map(jnp.copy, held)


def parts_of(setting: Setting) -> tuple[Batch, list[Part]]:
    """Return a real batch and the parts of an update, compiled and run once."""
    config, carry = setting.config, setting.carry
    key = jax.random.key(1)

    def collect(carry: Carry, key: jax.Array) -> Any:
        chance = draw(key, setting.env.action_space, config)
        return collect_rollout(carry, chance, env=setting.env, config=config)

    def advantages(carry: Carry, last_obs: jax.Array, rollout: Any) -> Any:
        return gae(rollout, value_of(carry.params, last_obs, config), carry.hyperparams)

    envs, rollout, _ = jax.jit(collect)(carry, key)
    advantage, target = jax.jit(advantages)(carry, envs.obs, rollout)
    batch: Batch = jax.tree.map(
        lambda leaf: leaf.reshape(-1, *leaf.shape[2:]),
        Batch(rollout.obs, rollout.action, rollout.log_prob, advantage, target),
    )
    order = shuffle(key, config.batch_size).reshape(config.num_minibatches, -1)
    chunks = jax.tree.map(
        lambda leaf: leaf[order].reshape(-1, setting.ppo.microbatch, *leaf.shape[1:]), batch
    )
    grads = jax.tree.map(jnp.ones_like, carry.params)
    orders = jnp.concatenate([order] * config.num_epochs)
    pieces: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "rollout": (collect, (carry, key)),
        "advantage": (advantages, (carry, envs.obs, rollout)),
        "shuffle": (_shuffles(config), (jax.random.split(key, config.num_epochs),)),
        "side_by_side": (side_by_side, (batch,)),
        "gather": (_gather, (side_by_side(batch), orders)),
        "forward_backward": (_gradients(config), (carry, chunks)),
        "optimiser": (_optimiser_steps(config), (carry, grads)),
    }
    updates = updates_of(config)
    return batch, [_part(name, *piece, updates) for name, piece in pieces.items()]


def _part(
    name: str, function: Callable[..., Any], arguments: tuple[Any, ...], updates: int
) -> Part:
    """Return a part whose program does what so many updates do of it, one after another."""

    def program(arguments: tuple[Any, ...]) -> Any:
        nothing = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *arguments)
        )

        def again(_: int, held: Any) -> Any:
            # Behind the barrier nobody knows that arguments stay: none is computed once for all.
            return jax.lax.optimization_barrier((held[0], function(*held[0])))

        return jax.lax.fori_loop(0, updates, again, (arguments, nothing))[1]

    compiled = jax.jit(program).lower(arguments).compile()
    jax.block_until_ready(compiled(arguments))
    return Part(name, lambda: jax.block_until_ready(compiled(arguments)))


def _shuffles(config: PPOConfig) -> Callable[[jax.Array], jax.Array]:
    """Return the shuffles of all epochs, of a key each."""
    return lambda keys: jax.lax.map(lambda key: shuffle(key, config.batch_size), keys)


def _gather(rows: Rows, order: jax.Array) -> Batch:
    """Gather every minibatch in turn; each overwrites the one before, so that none is left out."""

    def gather(last: Batch, indices: jax.Array) -> tuple[Batch, None]:
        del last
        return with_wide_leaves(narrow_leaves(rows, indices), rows, indices), None

    first = jax.tree.map(lambda leaf: leaf[: order.shape[1]], rows.batch)
    minibatch: Batch = jax.lax.scan(gather, first, order)[0]
    return minibatch


def _gradients(config: PPOConfig) -> Callable[[Carry, Batch], Any]:
    """Return the gradients of all chunks of all epochs, summed, at parameters that stay."""

    def all_epochs(carry: Carry, chunks: Batch) -> Any:
        def gradient(rows: Batch) -> Any:
            return jax.grad(ppo_loss, has_aux=True)(carry.params, rows, carry.hyperparams, config)

        def accumulate(total: Any, rows: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(rows)), None

        def epoch(total: Any, _: None) -> tuple[Any, None]:
            return jax.lax.scan(accumulate, total, chunks)[0], None

        shapes = jax.eval_shape(gradient, jax.tree.map(lambda leaf: leaf[0], chunks))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.scan(epoch, nothing, None, length=config.num_epochs)[0]

    return all_epochs


def _optimiser_steps(config: PPOConfig) -> Callable[[Carry, Any], Any]:
    """Return all steps of the optimiser, on one gradient."""

    def steps(carry: Carry, grads: Any) -> Any:
        def step(state: Any, _: None) -> tuple[Any, None]:
            params, opt_state = state
            # Scaled by a parameter, so that nothing can be computed once for all steps.
            now = jax.tree.map(lambda grad, param: grad * param, grads, params)
            updates, opt_state = optimizer(carry.hyperparams).update(now, opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        start = (carry.params, carry.opt_state)
        length = config.num_epochs * config.num_minibatches
        return jax.lax.scan(step, start, None, length=length)[0]

    return steps


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    unit = "CPU ms" if document["clock"] == "cpu_s" else "ms"
    lines = []
    for row in document["configs"]:
        numbers = [row[key] for key in ("num_envs", "num_steps", "num_minibatches", "num_epochs")]
        lines.append(
            f"{','.join(map(str, numbers))}: {row['update_s'] * 1e3:,.1f} {unit} an update, "
            f"{row['sps']:,.0f} env-steps a second, {row['microbatch']} rows at once"
        )
        lines += [
            f"  {name:<18}{seconds * 1e3:>10,.2f}{row['parts_share'][name]:>8.1%}"
            for name, seconds in row["parts_s"].items()
        ]
        floor = row["floor"]
        copied = "unknown" if floor["copy_s"] is None else f"{floor['copy_s'] * 1e3:,.1f} {unit}"
        lines += [
            f"  floor: products {floor['matmul_s'] * 1e3:,.1f} {unit} at "
            f"{floor['matmul_flops_per_s'] / 1e9:,.1f} GFLOP/s, copies {copied}; together "
            f"{row['floor_share']:.0%} of the update",
            f"  all arithmetic of the update at {row['flops_per_s'] / 1e9:,.1f} GFLOP/s: "
            f"{row['share_of_matmul_rate']:.0%} of the rate of bare products at its own shapes; "
            f"the products alone: {row['products_share']:.0%}",
        ]
    return "\n".join(lines)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 4:
        raise ValueError(f"a config must be four numbers, but got {text!r}; try 2048,128,8,4")
    return numbers


if __name__ == "__main__":
    main()
