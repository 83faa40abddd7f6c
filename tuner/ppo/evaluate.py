"""Evaluation: what a policy earns in fresh environments, apart from what it earned in training.

Training returns favour few environments, because with many no long episode ends in time; whole
episodes from fresh environments compare policies fairly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from envs.base import ActionSpace, Discrete, Environment, EnvParams, is_done
from tuner.ppo.distributions import action_noise, categorical
from tuner.ppo.rollout import action_masks, step_envs
from tuner.ppo.types import Envs

PolicyFn: TypeAlias = Callable[[Any, PRNGKeyArray, Array, Array | None], Array]
"""`policy_fn(actor, key, obs: [B, *O], mask: [B, actions] | None) -> action: [B]` or `[B, D]`.

`PPO.policy_fn` is one. `mask` is None in environments that allow every action.
"""


class Returns(NamedTuple):
    """What every environment's first episode earned, and whether it had ended by then."""

    total: Float[Array, " num_envs"]
    ended: Bool[Array, " num_envs"]


class Evaluation(NamedTuple):
    """State of the loop: `total: [B]` reward so far, `running: [B]` still in its first episode."""

    envs: Envs
    key: PRNGKeyArray
    step: Array
    total: Array
    running: Array


def make_evaluate(
    env: Environment, policy_fn: PolicyFn, *, num_envs: int = 64
) -> Callable[[Any, PRNGKeyArray, EnvParams], Returns]:
    """Return a function that measures a policy on the first episode of fresh environments.

    Args:
        env: The environment.
        policy_fn: Samples actions; an argument of the returned function, the actor, chooses among
            policies, so that one compiled program serves all. Statistics that an actor holds are
            used and not changed.
        num_envs: Environments, each giving one return.

    Returns:
        `evaluate(actor, key, env_params) -> Returns`, to be compiled by the caller. It runs until
        all episodes have ended, or for `env.eval_steps` steps: an episode that is not over by then
        has earned what it has, since to leave it out would judge a policy that survives by its
        failures alone. Where `env.per_step_return`, it runs for exactly so many steps, totals are
        mean rewards per step, and all have ended.
    """

    def evaluate(actor: Any, key: PRNGKeyArray, env_params: EnvParams) -> Returns:
        def is_unfinished(evaluation: Evaluation) -> Array:
            return (evaluation.step < env.eval_steps) & jnp.any(evaluation.running)

        def advance(evaluation: Evaluation) -> Evaluation:
            key, policy_key, step_key = jax.random.split(evaluation.key, 3)
            mask = action_masks(env, evaluation.envs, env_params)
            action = policy_fn(actor, policy_key, evaluation.envs.obs, mask)
            envs, timestep = step_envs(env, evaluation.envs, action, step_key, env_params)
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
            return Returns(end.total / env.eval_steps, jnp.full_like(end.running, fill_value=True))
        return Returns(end.total, ~end.running)

    return evaluate


def random_policy(action_space: ActionSpace) -> PolicyFn:
    """Return the policy that chooses uniformly, among the allowed actions or over the box.

    It ignores its actor (pass `None`).
    """

    def policy_fn(
        actor: Any,
        key: PRNGKeyArray,
        obs: Shaped[Array, "B ..."],
        mask: Bool[Array, "B actions"] | None,
    ) -> Shaped[Array, "B ..."]:
        del actor
        num_envs = obs.shape[0]
        if not isinstance(action_space, Discrete):
            low, high = jnp.asarray(action_space.low), jnp.asarray(action_space.high)
            shares = jax.random.uniform(key, (num_envs, action_space.num_components))
            return low[None, :] + shares * (high - low)[None, :]
        if mask is not None:
            noise = action_noise(key, action_space, (num_envs,))
            return categorical(jnp.zeros(mask.shape, jnp.float32), mask).sample(noise)
        return jax.random.randint(key, (num_envs,), 0, action_space.num_actions)

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
