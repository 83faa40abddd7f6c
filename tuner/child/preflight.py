"""Before a search: trace environment and update for every config, and say where tracing fails.

Tracing allocates nothing and takes a fraction of a second a config, so that a Python `if` deep in a
user's environment costs them seconds and one line, not a study of crashed trials.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from envs import names
from envs.base import Discrete, Environment, action_mask_of
from envs.errors import EnvError, UnusableFactory
from tuner.child.program import build, build_environment
from tuner.child.tracing import explain, impurities, refusing_64_bits, require_same_tree
from tuner.protocol import PreflightRequest, Workload

Emit = Callable[..., None]

LONGEST_S = 30.0
"""After so long no further update is traced: a trial traces its own, and its failure is told."""
FEWEST = 2


def preflight(request: PreflightRequest, emit: Emit) -> None:
    """Trace the workload, and tell how many updates were traced and how long it took.

    A trainer of the user's is traced for every config, as far as `LONGEST_S` goes, largest and
    smallest first. Our PPO hands an environment nothing but `num_envs`, so that one config of each
    stands for all; where the environment is ours too, two do: the tests trace the whole space.

    Raises:
        UnusableFactory: Something cannot be traced.
        EnvError: The environment or the trainer cannot be made at all.
    """
    started = time.monotonic()
    workload = request.workload
    env, env_params = build_environment(workload)
    _trace_environment(env, env_params, workload.env)
    traced = 0
    for hardware in _worth_tracing(workload, request.configs):
        if traced >= FEWEST and time.monotonic() - started > LONGEST_S:
            break
        _trace_update(workload, hardware)
        traced += 1
    emit("traced", traced=traced, seconds=time.monotonic() - started)


def _worth_tracing(workload: Workload, configs: tuple[dict[str, int], ...]) -> list[dict[str, int]]:
    """Return the configs that may fail on their own; the smallest and the largest batch first."""
    by_batch = sorted(configs, key=lambda config: config["num_envs"] * config["num_steps"])
    corners = by_batch[:: max(1, len(by_batch) - 1)]
    rest = [config for config in by_batch if config not in corners]
    if workload.trainer is not None:
        return corners + rest
    if names.parse(workload.env).kind != "factory":
        return corners
    seen = {config["num_envs"] for config in corners}
    by_envs = {config["num_envs"]: config for config in rest if config["num_envs"] not in seen}
    return corners + list(by_envs.values())


def _trace_environment(env: Environment, env_params: Any, name: str) -> None:
    """Trace one reset, one step and the mask; the state must keep its shapes and types."""
    key = jax.eval_shape(jax.random.key, 0)
    space = env.action_space
    action = (
        jax.ShapeDtypeStruct((), jnp.int32)
        if isinstance(space, Discrete)
        else jax.ShapeDtypeStruct(space.shape, jnp.float32)
    )
    _, state = _trace(f"reset of {name}", env.reset, key, env_params)
    timestep = _trace(f"step of {name}", env.step, key, state, action, env_params)
    require_same_tree(state, timestep.state, f"the state of {name}")
    mask_of = action_mask_of(env)
    if mask_of is not None:
        _trace(f"action_mask of {name}", mask_of, state, env_params)


def _trace_update(workload: Workload, hardware: Mapping[str, int]) -> None:
    """Trace the start and one update under a config; the carry must keep its shapes and types."""
    what = workload.trainer or workload.env
    envs, steps, minibatches, epochs = hardware.values()
    where = f"{what} with {envs}x{steps} mb{minibatches} ep{epochs}"
    built = build(workload, dict(hardware))
    carry = _trace(where, built.init, jax.eval_shape(jax.random.key, 0))
    after, _ = _trace(where, built.update_fn, carry)
    require_same_tree(carry, after, f"the carry of {what}")
    if not jax.tree.leaves(built.actor_of(carry).params):
        raise UnusableFactory(
            f"the carry of {what} must hold what trains under the name params, by which a policy "
            "that never changes is told, but got none of that name; rename it"
        )


def _trace(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the shapes of what a function returns.

    Raises:
        UnusableFactory: It cannot be traced, or is not pure; says where, and the cure.
    """
    try:
        with refusing_64_bits():
            program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except EnvError:
        raise
    except Exception as error:
        raise UnusableFactory(f"{what}: {explain(error)}") from error
    if found := impurities(program):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UnusableFactory(f"{what}: {found[0]}{more}")
    return shapes
