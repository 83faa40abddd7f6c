"""What a policy returns: fresh environments, fixed keys, the first whole episode of each.

Training returns would favour few environments, since with many no long episode ends in time; so
the finished policy, and the uniformly random one, are evaluated alike for every config.
"""

import math

import jax
import numpy as np

from tuner.child.program import Built
from tuner.ppo.evaluate import make_evaluate, random_policy
from tuner.ppo.types import Actor

NUM_ENVS = 64
EVALUATION_SEED = 20_000
"""Evaluation keys are fixed: two policies meet the same environments."""


def evaluate_policy(built: Built, actor: Actor) -> dict[str, float | None]:
    """Return `mean_return` of a trained policy and `return_se`, its standard error over episodes.

    Both are None when no episode ended. Statistics in the actor are those of the end of training.
    """
    evaluate = jax.jit(make_evaluate(built.env, built.ppo.policy_fn, num_envs=NUM_ENVS))
    returns = evaluate(actor, jax.random.key(EVALUATION_SEED), built.env_params)
    values = np.asarray(returns, dtype=np.float64)
    values = values[~np.isnan(values)]
    if values.size < 2:
        return {"mean_return": None, "return_se": None}
    error = float(values.std(ddof=1)) / math.sqrt(values.size)
    return {"mean_return": float(values.mean()), "return_se": error}


def evaluate_random(built: Built, seed: int) -> float | None:
    """Return the mean return of uniformly random actions; None when no episode ended."""
    policy = random_policy(built.env.action_space)
    evaluate = jax.jit(make_evaluate(built.env, policy, num_envs=NUM_ENVS))
    returns = np.asarray(evaluate(None, jax.random.key(EVALUATION_SEED + seed), built.env_params))
    known = returns[~np.isnan(returns)]
    return float(known.mean()) if known.size else None
