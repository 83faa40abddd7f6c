"""A trainer of the user's: `package.module:factory`, held to what a trial needs of it.

The contract: `factory(hardware, env, env_params, seed) -> (init_fn, update_fn)`. `hardware` has the
attributes `num_envs`, `num_steps`, `num_minibatches` and `num_epochs`; `env` follows
`envs.base.Environment`, whose `step` never resets. `init_fn(key) -> carry` and
`update_fn(carry) -> (carry, metrics)` are pure and can be compiled; one update trains on
`num_envs × num_steps` env-steps. The carry holds its parameters under the name `params`, by which
a policy that never changes is told from one that learns. `metrics` holds scalars by the names of
the trial record, among them `mean_return`: of the episodes that ended, NaN where none did, or the
mean reward of a step where `env.per_step_return`.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from envs.adapter import as_arrays
from envs.base import Environment
from envs.errors import UnusableFactory
from envs.factory import call, load_callable
from tuner.ppo.types import Metrics
from tuner.space import HardwareConfig

REQUIRED_METRIC = "mean_return"
PARAMS = "params"


def make_trainer(
    spec: str, hardware: Mapping[str, int], env: Environment, env_params: Any, seed: int
) -> tuple[Callable[[jax.Array], Any], Callable[[Any], tuple[Any, Metrics]]]:
    """Call the factory, and wrap what it returns.

    Returns:
        `init_fn`, whose carry shares no buffer with anything, so that it may be donated, and
        `update_fn`, whose metrics are float32 scalars.

    Raises:
        UnusableFactory: It cannot be imported, fails, or returns something else; what it returns
            is checked further when it is traced.
    """
    factory = load_callable(spec, "--trainer")
    made = call(factory, spec, HardwareConfig(**hardware), env, env_params, seed)
    if not (isinstance(made, tuple) and len(made) == 2 and all(callable(part) for part in made)):
        raise UnusableFactory(
            f"the trainer {spec} must return (init_fn, update_fn), two functions, but got "
            f"{type(made).__name__}; return them as a pair"
        )
    init, update = made

    def init_fn(key: jax.Array) -> Any:
        return jax.tree.map(jnp.copy, as_arrays(init(key), f"the carry of {spec}"))

    def update_fn(carry: Any) -> tuple[Any, Metrics]:
        updated = update(carry)
        if not (isinstance(updated, tuple) and len(updated) == 2):
            raise UnusableFactory(
                f"update_fn of {spec} must return (carry, metrics), but got "
                f"{type(updated).__name__}; return both as a pair"
            )
        carry, metrics = updated
        return carry, _scalars(metrics, spec)

    return init_fn, update_fn


class Learned(NamedTuple):
    """What training changes: the leaves of a carry under the name `params`, by their path."""

    params: dict[str, jax.Array]


def learned(carry: Any) -> Learned:
    """Return what is known of a trainer's policy; without any leaf where it keeps no `params`."""
    return Learned(
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(carry)
            if any(_name(key) == PARAMS for key in path)
        }
    )


def _name(key: Any) -> Any:
    """Return the name of one step of a path: of a field or of a mapping's key."""
    return getattr(key, "name", getattr(key, "key", None))


def _scalars(metrics: Any, spec: str) -> Metrics:
    if not isinstance(metrics, Mapping) or REQUIRED_METRIC not in metrics:
        got = sorted(metrics) if isinstance(metrics, Mapping) else type(metrics).__name__
        raise UnusableFactory(
            f"the metrics of {spec} must be a dict that holds {REQUIRED_METRIC}, but got {got}; "
            "add the mean return of the episodes that ended, NaN if none did"
        )
    return {str(name): _scalar(value, str(name), spec) for name, value in metrics.items()}


def _scalar(value: Any, name: str, spec: str) -> jax.Array:
    try:
        scalar = jnp.asarray(value).astype(jnp.float32)
    except (TypeError, ValueError):
        scalar = None
    if scalar is None or scalar.shape != ():
        got = type(value).__name__ if scalar is None else f"shape {scalar.shape}"
        raise UnusableFactory(
            f"the metrics of {spec} must be scalars, but got {got} for {name}; reduce it inside "
            "update_fn, or leave it out"
        )
    return scalar
