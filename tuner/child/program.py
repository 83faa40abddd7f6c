"""The compiled parts of a trial: a block of updates, and the evaluation of a policy.

A block runs a *traced* number of PPO updates and reduces their metrics inside the program, so
that one compilation serves the warm-up and blocks of every length, and the host is asked for once
a block, not once an update.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from envs.base import Environment
from envs.registry import make
from tuner.child.compiles import CompileCounter
from tuner.child.cost import Cost, count
from tuner.child.memory import predicted_bytes
from tuner.ppo.train import PPO, make_ppo
from tuner.ppo.types import Hyperparams, Metrics, PPOConfig
from tuner.protocol import Workload


@dataclass(frozen=True, slots=True)
class Built:
    """An environment, its parameters, and the PPO that trains on it."""

    env: Environment
    env_params: Any
    ppo: PPO
    hyperparams: Hyperparams

    def init(self, key: jax.Array, params: Any = None) -> Any:
        """Return a fresh carry, around `params` if they are given."""
        return self.ppo.init_fn(key, self.hyperparams, self.env_params, params)


def build(
    workload: Workload,
    hardware: dict[str, int],
    lr_factor: float = 1.0,
    *,
    env_steps: int | None = None,
) -> Built:
    """Make the environment and the PPO of a request.

    Args:
        workload: What is trained.
        hardware: The four numbers.
        lr_factor: Multiplies the learning rate.
        env_steps: The trial's budget, over which a linear schedule falls where the workload does
            not say; None where nothing is trained.

    Raises:
        EnvError: The environment or one of its parameters is at fault.
    """
    env, env_params = make(workload.env, workload.env_params)
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
    return Built(env, env_params, make_ppo(config, env), Hyperparams(**scalars))


def block_fn(update_fn: Callable[[Any], tuple[Any, Metrics]]) -> Callable[..., tuple[Any, Metrics]]:
    """Return `block(carry, num_updates) -> (carry, sums)`; `num_updates` is a traced int32.

    `sums` holds the sum of every metric over the updates, `updates`, and, as returns exist only
    where episodes ended, the sum of the returns that exist with their number `return_updates`.
    """

    def block(carry: Any, num_updates: jax.Array) -> tuple[Any, Metrics]:
        def body(_: jax.Array, loop: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
            carry, sums = loop
            carry, metrics = update_fn(carry)
            known = ~jnp.isnan(metrics["mean_return"])
            metrics = metrics | {
                "mean_return": jnp.where(known, metrics["mean_return"], 0.0),
                "return_updates": known.astype(jnp.float32),
                "updates": jnp.float32(1),
            }
            return carry, {name: sums[name] + value for name, value in metrics.items()}

        metrics = jax.eval_shape(update_fn, carry)[1]
        zeros = dict.fromkeys((*metrics, "return_updates", "updates"), jnp.float32(0))
        result: tuple[Any, Metrics] = jax.lax.fori_loop(0, num_updates, body, (carry, zeros))
        return result

    return block


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


def compile_training(built: Built, counter: CompileCounter, platform: str) -> Program:
    """Compile from shapes alone: nothing is allocated on the device."""
    started = time.monotonic()
    key = jax.eval_shape(jax.random.key, 0)
    num_updates = jax.ShapeDtypeStruct((), jnp.int32)
    lowered_params = jax.jit(built.ppo.params_fn).lower(key)
    lowered_init = jax.jit(built.init).lower(key, lowered_params.out_info)
    block = jax.jit(block_fn(built.ppo.update_fn), donate_argnums=0)
    lowered = block.lower(lowered_init.out_info, num_updates)
    lowered_at, hits = time.monotonic(), counter.cache_hits
    compiled = lowered.compile()
    params_fn, init_fn = lowered_params.compile(), lowered_init.compile()
    compiled_at = time.monotonic()
    # Lowering the block has traced the update already, so that jax only looks it up here.
    update = jax.make_jaxpr(built.ppo.update_fn)(lowered_init.out_info)
    return Program(
        init=lambda key: init_fn(key, params_fn(key)),
        run=compiled,
        lower_s=lowered_at - started,
        compile_s=compiled_at - lowered_at,
        cached=counter.cache_hits - hits == len((compiled, params_fn, init_fn)),
        predicted_bytes=predicted_bytes(compiled, platform),
        cost=count(update),
    )
