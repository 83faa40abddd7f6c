"""The compiled parts of a trial: a block of updates, and the evaluation of a policy.

A block runs a *traced* number of PPO updates and reduces their metrics inside the program, so
that one compilation serves the warm-up and blocks of every length, and the host is asked for once
a block, not once an update.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Environment
from envs.registry import make
from tuner.child.compiles import CompileCounter
from tuner.child.cost import Cost, count
from tuner.child.memory import predicted_bytes
from tuner.child.trainer import learned, make_trainer
from tuner.ppo.evaluate import PolicyFn
from tuner.ppo.platform import for_cpu
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, Metrics, PPOConfig
from tuner.protocol import Workload

UpdateFn = Callable[[Any], tuple[Any, Metrics]]


@dataclass(frozen=True, slots=True)
class Built:
    """An environment, its parameters, and the training on it: our PPO, or a trainer of the user's.

    `params_fn(key)` draws what `init_fn(key, params)` makes a carry around. They are apart because
    PPO's orthogonal start takes seconds to compile and, unlike the rest, not anew for every
    hardware config. `actor_of(carry)` is what training changes: its `params` tell a frozen policy
    from one that learns, and `policy_fn` acts with it, None where only the trainer knows how.
    `hyperparams` are PPO's, None for a trainer.
    """

    env: Environment
    env_params: Any
    params_fn: Callable[[jax.Array], Any]
    init_fn: Callable[[jax.Array, Any], Any]
    update_fn: UpdateFn
    actor_of: Callable[[Any], Any]
    policy_fn: PolicyFn | None
    hyperparams: Hyperparams | None

    def init(self, key: jax.Array) -> Any:
        """Return a fresh carry."""
        return self.init_fn(key, self.params_fn(key))


def build(
    workload: Workload,
    hardware: dict[str, int],
    lr_factor: float = 1.0,
    *,
    env_steps: int | None = None,
    seed: int = 0,
) -> Built:
    """Make the environment and the training of a request.

    Args:
        workload: What is trained.
        hardware: The four numbers.
        lr_factor: Multiplies PPO's learning rate.
        env_steps: The trial's budget, over which a linear schedule falls where the workload does
            not say; None where nothing is trained.
        seed: Given to a trainer of the user's; PPO has its keys.

    Raises:
        EnvError: The environment, one of its parameters or the trainer is at fault.
    """
    env, env_params = build_environment(workload)
    if workload.trainer is not None:
        init_fn, update_fn = make_trainer(workload.trainer, hardware, env, env_params, seed)
        return Built(
            env=env,
            env_params=env_params,
            params_fn=lambda key: None,
            init_fn=lambda key, params: init_fn(key),
            update_fn=update_fn,
            actor_of=learned,
            policy_fn=None,
            hyperparams=None,
        )
    config = PPOConfig(
        **hardware,
        network=workload.network,
        activation=workload.activation,
        dtype=workload.dtype,
        microbatch=workload.microbatch,
        lr_schedule=workload.lr_schedule,
        normalize_obs=workload.normalize_obs,
        normalize_reward=workload.normalize_reward,
        clip_value_loss=workload.clip_value_loss,
    )
    scalars = dict(workload.hyperparams)
    scalars["learning_rate"] *= lr_factor
    if anneal_env_steps := workload.lr_anneal_env_steps or env_steps:
        scalars["lr_anneal_env_steps"] = anneal_env_steps
    hyperparams, ppo = Hyperparams(**scalars), make_ppo(config, env)
    return Built(
        env=env,
        env_params=env_params,
        params_fn=ppo.params_fn,
        init_fn=lambda key, params: ppo.init_fn(key, hyperparams, env_params, params),
        update_fn=ppo.update_fn,
        actor_of=lambda carry: carry.actor,
        policy_fn=ppo.policy_fn,
        hyperparams=hyperparams,
    )


def build_environment(workload: Workload) -> tuple[Environment, Any]:
    """Make the environment of a request, with its traced parameters.

    Raises:
        EnvError: The environment, one of its parameters or its data is at fault.
    """
    source = None
    if workload.market is not None:
        from envs.bars import MarketSource  # brings pandas

        source = MarketSource(**workload.market)
    return make(workload.env, workload.env_params, source)


def block_fn(update_fn: UpdateFn) -> Callable[..., tuple[Any, Metrics]]:
    """Return `block(carry, num_updates) -> (carry, sums)`; `num_updates` is a traced int32.

    What `update_fn` traces to is kept: for another platform take another function (`make_ppo`).

    `sums` holds the sum of every metric over the updates, `updates`, and, as returns exist only
    where episodes ended, the sum of the returns that exist with their number `return_updates`.
    """

    update = jax.jit(update_fn)  # traced once, for its shapes and in the loop; compiled inline

    def block(carry: Any, num_updates: jax.Array) -> tuple[Any, Metrics]:
        def body(_: jax.Array, loop: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
            carry, sums = loop
            carry, metrics = update(carry)
            known = ~jnp.isnan(metrics["mean_return"])
            metrics = metrics | {
                "mean_return": jnp.where(known, metrics["mean_return"], 0.0),
                "return_updates": known.astype(jnp.float32),
                "updates": jnp.float32(1),
            }
            return carry, {name: sums[name] + value for name, value in metrics.items()}

        metrics = jax.eval_shape(update, carry)[1]
        zeros = dict.fromkeys((*metrics, "return_updates", "updates"), jnp.float32(0))
        result: tuple[Any, Metrics] = jax.lax.fori_loop(0, num_updates, body, (carry, zeros))
        return result

    return block


def lower_block(update_fn: UpdateFn, carry: Any, device: jax.Device | None = None) -> Any:
    """Return the lowered block (`jax.stages.Lowered`), from the shapes of a carry alone.

    Args:
        update_fn: One update.
        carry: Shapes and types; it is donated.
        device: What to lower for, also one that is not here; None for jax's own.
    """
    arguments = (carry, jax.ShapeDtypeStruct((), jnp.int32))
    if device is not None:
        here = jax.sharding.SingleDeviceSharding(device)
        arguments = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), arguments
        )
    return jax.jit(block_fn(update_fn), donate_argnums=0).lower(*arguments)


def block_means(sums: Metrics) -> dict[str, float | None]:
    """Return a block's mean metrics; `mean_return` is None when no episode ended in it."""
    values = {name: float(value) for name, value in jax.device_get(sums).items()}
    updates, known = values.pop("updates"), values.pop("return_updates")
    returns = values.pop("mean_return")
    means: dict[str, float | None] = {name: value / updates for name, value in values.items()}
    return {"mean_return": returns / known if known else None} | means


@dataclass(frozen=True, slots=True)
class Program:
    """The compiled training, with what compiling it took and what running it will take.

    `init(key)` makes a carry, `run(carry, num_updates)` is a block; `predicted_bytes` is its.
    `cost` is the work in one update.
    """

    init: Callable[[jax.Array], Any]
    run: Callable[[Any, jax.Array], tuple[Any, Metrics]]
    lower_s: float
    compile_s: float
    cached: bool
    predicted_bytes: int | None
    cost: Cost


class Ran(NamedTuple):
    """What came of a block: the carry after it, its seconds, its mean metrics."""

    carry: Any
    seconds: float
    metrics: dict[str, float | None]


def run_block(program: Program, carry: Any, num_updates: jax.Array) -> Ran:
    """Run one block to its very end, and time it; the carry is donated."""
    started = time.perf_counter()
    carry, sums = jax.block_until_ready(program.run(carry, num_updates))
    seconds = time.perf_counter() - started
    return Ran(carry, seconds, block_means(sums))


def compile_start(lowered: Any) -> Any:
    """Compile what runs once, to make parameters or a carry (`jax.stages.Lowered`).

    On a CPU without LLVM's optimisations: they take seconds and the program milliseconds.
    """
    return lowered.compile({"xla_backend_optimization_level": 0} if for_cpu() else None)


def compile_training(built: Built, counter: CompileCounter, platform: str) -> Program:
    """Compile from shapes alone: nothing is allocated on the device."""
    started = time.monotonic()
    key = jax.eval_shape(jax.random.key, 0)
    lowered_params = jax.jit(built.params_fn).lower(key)
    lowered_init = jax.jit(built.init_fn).lower(key, lowered_params.out_info)
    lowered = lower_block(built.update_fn, lowered_init.out_info)
    lowered_at, hits = time.monotonic(), counter.cache_hits
    compiled = lowered.compile()
    params_fn = compile_start(lowered_params)
    # A trainer of the user's may do anything in its init.
    is_ours = built.hyperparams is not None
    init_fn = compile_start(lowered_init) if is_ours else lowered_init.compile()
    compiled_at = time.monotonic()
    # Lowering the block has traced the update already, so that jax only looks it up here.
    update = jax.make_jaxpr(built.update_fn)(lowered_init.out_info)
    return Program(
        init=lambda key: init_fn(key, params_fn(key)),
        run=compiled,
        lower_s=lowered_at - started,
        compile_s=compiled_at - lowered_at,
        cached=counter.cache_hits - hits == len((compiled, params_fn, init_fn)),
        predicted_bytes=predicted_bytes(compiled, platform),
        cost=count(update),
    )
