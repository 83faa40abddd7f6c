"""Collecting experience: `T` steps of `B` environments under the present policy."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from envs.base import Environment, EnvParams, Timestep, is_done
from tuner.ppo.networks import log_prob_of, logits_of, value_of
from tuner.ppo.types import Carry, Envs, Params, PPOConfig, Transition


class EpisodeStats(NamedTuple):
    """Sums over a rollout, `[]`: of all rewards, of finished episodes' returns and their number."""

    reward: Array
    finished_return: Array
    finished: Array


def start_envs(
    env: Environment, key: PRNGKeyArray, env_params: EnvParams, *, num_envs: int
) -> Envs:
    """Reset `num_envs` environments and spread their clocks evenly over the episode."""
    keys = jax.random.split(key, num_envs)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
    fractions = jnp.arange(num_envs, dtype=jnp.float32) / num_envs
    state = jax.vmap(env.stagger)(state, fractions)
    return Envs(state, obs, jnp.zeros((num_envs,), jnp.float32))


def step_envs(
    env: Environment, envs: Envs, action: Int[Array, " B"], key: PRNGKeyArray, env_params: EnvParams
) -> tuple[Envs, Timestep]:
    """Step every environment, then reset those whose episode ended; the key is consumed.

    Returns:
        The environments, ready to be acted on, and the step as it was *before* any reset, with
        every leaf `[B, …]`.
    """
    num_envs = action.shape[0]
    step_key, reset_key = jax.random.split(key)
    timestep = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
        jax.random.split(step_key, num_envs), envs.state, action, env_params
    )
    done = is_done(timestep)
    stepped = Envs(timestep.state, timestep.obs, envs.episode_return + timestep.reward)

    def reset_finished() -> Envs:
        keys = jax.random.split(reset_key, num_envs)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
        fresh = Envs(state, obs, jnp.zeros((num_envs,), jnp.float32))
        chosen: Envs = jax.tree.map(partial(_where, done), fresh, stepped)
        return chosen

    # Most steps end no episode: drawing and selecting fresh states only when one does keeps the
    # cost of `reset` out of them.
    ready: Envs = jax.lax.cond(jnp.any(done), reset_finished, lambda: stepped)
    return ready, timestep


def collect_rollout(
    carry: Carry, key: PRNGKeyArray, *, env: Environment, config: PPOConfig
) -> tuple[Envs, Transition, EpisodeStats]:
    """Run the present policy for `T` steps; the key is consumed.

    Returns:
        Where the environments stand afterwards, the transitions `[T, B, …]`, and the sums over
        episodes.
    """

    def step(
        state: tuple[Envs, EpisodeStats], step_key: PRNGKeyArray
    ) -> tuple[tuple[Envs, EpisodeStats], Transition]:
        envs, stats = state
        action_key, env_key = jax.random.split(step_key)
        action, log_prob, value = _act(carry.params, envs.obs, action_key, config)
        stepped, timestep = step_envs(env, envs, action, env_key, carry.env_params)
        done = is_done(timestep)
        transition = Transition(
            obs=envs.obs,
            action=action,
            log_prob=log_prob,
            value=value,
            reward=timestep.reward,
            done=done,
            final_value=_final_value(carry.params, timestep, config),
        )
        finished_return = jnp.where(done, envs.episode_return + timestep.reward, 0.0)
        stats = EpisodeStats(
            reward=stats.reward + timestep.reward.sum(),
            finished_return=stats.finished_return + finished_return.sum(),
            finished=stats.finished + done.sum(dtype=jnp.float32),
        )
        return (stepped, stats), transition

    nothing = EpisodeStats(*(jnp.zeros((), jnp.float32) for _ in EpisodeStats._fields))
    keys = jax.random.split(key, config.num_steps)
    (envs, stats), rollout = jax.lax.scan(step, (carry.envs, nothing), keys)
    return envs, rollout, stats


def mean_return(stats: EpisodeStats, *, env: Environment, num_env_steps: int) -> Float[Array, ""]:
    """Return the mean over finished episodes (NaN without any), or the mean reward per step."""
    if env.per_step_return:
        return stats.reward / num_env_steps
    return stats.finished_return / stats.finished


def _act(
    params: Params, obs: Shaped[Array, "B ..."], key: PRNGKeyArray, config: PPOConfig
) -> tuple[Int[Array, " B"], Float[Array, " B"], Float[Array, " B"]]:
    """Sample actions; return them with their log-probabilities and the observations' values."""
    logits = logits_of(params, obs, config)
    action = jax.random.categorical(key, logits).astype(jnp.int32)
    log_prob = log_prob_of(jax.nn.log_softmax(logits), action)
    return action, log_prob, value_of(params, obs, config)


def _final_value(params: Params, timestep: Timestep, config: PPOConfig) -> Float[Array, " B"]:
    """Return the value of the last observation where a time limit cut an episode, else 0."""
    cut = jnp.logical_and(timestep.truncated, jnp.logical_not(timestep.terminated))
    value: Array = jax.lax.cond(
        jnp.any(cut),
        lambda: jnp.where(cut, value_of(params, timestep.obs, config), 0.0),
        lambda: jnp.zeros(cut.shape, jnp.float32),
    )
    return value


def _where(condition: Array, chosen: Any, otherwise: Any) -> Array:
    """Choose along the leading axis for leaves of any rank."""
    condition = condition.reshape(condition.shape + (1,) * (chosen.ndim - condition.ndim))
    return jnp.where(condition, chosen, otherwise)
