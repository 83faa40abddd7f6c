"""Evaluation: what a policy earns in fresh environments, apart from what it earned in training.

Training returns favour few environments, because with many no long episode ends in time; whole
episodes from fresh environments compare policies fairly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from envs.base import Environment, EnvParams, is_done
from tuner.ppo.rollout import step_envs
from tuner.ppo.types import Envs

PolicyFn: TypeAlias = Callable[[Any, PRNGKeyArray, Array], Array]
"""`policy_fn(params, key, obs: [B, *O]) -> action: [B]`; `PPO.policy_fn` is one."""


class Evaluation(NamedTuple):
    """State of the loop: `total: [B]` reward so far, `running: [B]` still in its first episode."""

    envs: Envs
    key: PRNGKeyArray
    step: Array
    total: Array
    running: Array


def make_evaluate(
    env: Environment, policy_fn: PolicyFn, *, num_envs: int = 64
) -> Callable[[Any, PRNGKeyArray, EnvParams], Float[Array, " num_envs"]]:
    """Return a function that measures a policy on the first whole episode of fresh environments.

    Args:
        env: The environment.
        policy_fn: Samples actions; a parameter of the returned function chooses among policies, so
            that one compiled program serves all parameters.
        num_envs: Environments, each giving one return.

    Returns:
        `evaluate(params, key, env_params) -> returns [num_envs]`, to be compiled by the caller. It
        runs until all episodes have ended. Where `env.per_step_return`, it runs for exactly
        `env.eval_steps` steps and returns mean rewards per step. NaN for an episode that
        did not end within `env.eval_steps`.
    """

    def evaluate(
        params: Any, key: PRNGKeyArray, env_params: EnvParams
    ) -> Float[Array, " num_envs"]:
        def is_unfinished(evaluation: Evaluation) -> Array:
            return (evaluation.step < env.eval_steps) & jnp.any(evaluation.running)

        def advance(evaluation: Evaluation) -> Evaluation:
            key, policy_key, env_key = jax.random.split(evaluation.key, 3)
            action = policy_fn(params, policy_key, evaluation.envs.obs)
            envs, timestep = step_envs(env, evaluation.envs, action, env_key, env_params)
            earned = jnp.where(evaluation.running, timestep.reward, 0.0)
            ended = jnp.logical_and(is_done(timestep), not env.per_step_return)
            return Evaluation(
                envs=envs,
                key=key,
                step=evaluation.step + 1,
                total=evaluation.total + earned,
                running=jnp.logical_and(evaluation.running, jnp.logical_not(ended)),
            )

        start = _start(env, key, env_params, num_envs=num_envs)
        end = jax.lax.while_loop(is_unfinished, advance, start)
        if env.per_step_return:
            return end.total / env.eval_steps
        return jnp.where(end.running, jnp.nan, end.total)

    return evaluate


def random_policy(num_actions: int) -> PolicyFn:
    """Return the policy that chooses uniformly; it ignores its parameters (pass `None`)."""

    def policy_fn(params: Any, key: PRNGKeyArray, obs: Shaped[Array, "B ..."]) -> Int[Array, " B"]:
        del params
        return jax.random.randint(key, (obs.shape[0],), 0, num_actions)

    return policy_fn


def _start(
    env: Environment, key: PRNGKeyArray, env_params: EnvParams, *, num_envs: int
) -> Evaluation:
    key, reset_key = jax.random.split(key)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(
        jax.random.split(reset_key, num_envs), env_params
    )
    zeros = jnp.zeros((num_envs,), jnp.float32)
    return Evaluation(
        envs=Envs(state, obs, zeros),
        key=key,
        step=jnp.zeros((), jnp.int32),
        total=zeros,
        running=jnp.ones((num_envs,), jnp.bool_),
    )
