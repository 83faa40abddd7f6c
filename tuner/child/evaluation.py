"""What a policy returns: fresh environments, fixed keys, the first episode of each.

Training returns would favour few environments, since with many no long episode ends in time; so
trained policies, and the uniformly random one, are evaluated alike for every config.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from envs.base import Environment
from tuner.child.program import Built
from tuner.ppo.evaluate import make_evaluate, random_policy
from tuner.ppo.types import Actor

NUM_ENVS = 64
EVALUATION_SEED = 20_000
"""Evaluation keys are fixed: two policies meet the same environments."""
NOT_JUDGED: dict[str, float | None] = {"mean_return": None, "return_se": None}


def evaluate_policies(built: Built, actors: Sequence[Actor]) -> dict[str, Any]:
    """Return what one training's policies earned, one after the other, all in equal environments.

    That is `mean_return` of the last one and `return_se`, its standard error over episodes, and
    `earlier`, the mean returns of those before. Statistics in an actor are those of its time.
    """
    if built.policy_fn is None:
        raise ValueError("a trainer of the user's is judged by its training returns instead")
    evaluate = jax.jit(make_evaluate(built.env, built.policy_fn, num_envs=NUM_ENVS))
    key = jax.random.key(EVALUATION_SEED)
    *earlier, last = [
        _mean_and_error(np.asarray(evaluate(actor, key, built.env_params).total, dtype=np.float64))
        for actor in actors
    ]
    return {**last, "earlier": [found["mean_return"] for found in earlier]}


def training_return(returns: Sequence[float | None]) -> dict[str, float | None]:
    """Return the same of the last quarter of training, for a trainer that keeps its policy.

    Args:
        returns: the mean return of every block, None where no episode ended in it.
    """
    tail = returns[-max(2, len(returns) // 4) :]
    return _mean_and_error(np.array([r for r in tail if r is not None], dtype=np.float64))


def evaluate_random(env: Environment, env_params: Any, seed: int) -> float | None:
    """Return the mean return of uniformly random actions; None when no episode ended."""
    policy = random_policy(env.action_space)
    evaluate = jax.jit(make_evaluate(env, policy, num_envs=NUM_ENVS))
    returns = evaluate(None, jax.random.key(EVALUATION_SEED + seed), env_params)
    mean = _mean_and_error(np.asarray(returns.total, dtype=np.float64))["mean_return"]
    return mean if returns.ended.any() else None


def params_changed(before: Any, after: Any) -> bool | None:
    """Return whether any parameter has moved; None where there is none to be seen."""
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    return any(bool(jnp.any(old != new)) for old, new in pairs) if pairs else None


def _mean_and_error(values: NDArray[np.float64]) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    if known.size < 2:
        return dict(NOT_JUDGED)
    error = float(known.std(ddof=1)) / math.sqrt(known.size)
    return {"mean_return": float(known.mean()), "return_se": error}
