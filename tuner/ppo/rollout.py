"""Collecting experience: `T` steps of `B` environments under the present policy."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from envs.base import (
    ActionSpace,
    Discrete,
    Environment,
    EnvParams,
    Timestep,
    action_mask_of,
    is_done,
)
from tuner.ppo.chance import Chance, reset_key
from tuner.ppo.networks import policy_of, value_of
from tuner.ppo.normalize import normalize_obs
from tuner.ppo.types import Actor, Carry, Envs, PPOConfig, Transition
from tuner.ppo.update import microbatch_size


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
    env: Environment,
    envs: Envs,
    action: Shaped[Array, "B ..."],
    key: PRNGKeyArray,
    env_params: EnvParams,
) -> tuple[Envs, Timestep]:
    """Step every environment, then reset those whose episode ended; the key is consumed.

    Actions of a box are clipped to its bounds here, where they enter the environment, and nowhere
    else.

    Returns:
        The environments, ready to be acted on, and the step as it was *before* any reset, with
        every leaf `[B, …]`.
    """
    num_envs = action.shape[0]
    timestep = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
        jax.random.split(key, num_envs),
        envs.state,
        _bounded(action, env.action_space),
        env_params,
    )
    done = is_done(timestep)
    stepped = Envs(timestep.state, timestep.obs, envs.episode_return + timestep.reward)

    def reset_finished() -> Envs:
        # Keys of its own, made in here: where steps draw nothing, most steps then make no keys.
        keys = jax.random.split(reset_key(key), num_envs)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, env_params)
        fresh = Envs(state, obs, jnp.zeros_like(envs.episode_return))
        chosen: Envs = jax.tree.map(partial(_where, done), fresh, stepped)
        return chosen

    # Most steps end no episode: drawing and selecting fresh states only when one does keeps the
    # cost of `reset` out of them.
    ready: Envs = jax.lax.cond(jnp.any(done), reset_finished, lambda: stepped)
    return ready, timestep


def action_masks(
    env: Environment, envs: Envs, env_params: EnvParams
) -> Bool[Array, "B actions"] | None:
    """Return which actions each environment allows now; None where it has no masks."""
    action_mask = action_mask_of(env)
    if action_mask is None:
        return None
    masks: Array = jax.vmap(action_mask, in_axes=(0, None))(envs.state, env_params)
    return masks


def collect_rollout(
    carry: Carry, chance: Chance, *, env: Environment, config: PPOConfig
) -> tuple[Envs, Transition, EpisodeStats]:
    """Run the present policy for `T` steps, with what was drawn for them.

    Returns:
        Where the environments stand afterwards, the transitions `[T, B, …]`, and the sums over
        episodes.
    """

    def step(
        state: tuple[Envs, EpisodeStats], drawn: tuple[Array, Array]
    ) -> tuple[tuple[Envs, EpisodeStats], Transition]:
        envs, stats = state
        step_key, noise = drawn
        mask = action_masks(env, envs, carry.env_params)
        seen = normalize_obs(carry.obs_stats, envs.obs)
        policy = policy_of(carry.params, seen, config, mask=mask)
        action = policy.sample(noise)
        stepped, timestep = step_envs(env, envs, action, step_key, carry.env_params)
        done = is_done(timestep)
        transition = Transition(
            obs=envs.obs,
            action=action,
            log_prob=policy.log_prob(action),
            value=jnp.zeros_like(timestep.reward),  # of all steps together, below
            reward=timestep.reward,
            done=done,
            final_value=_final_value(carry.actor, timestep, config),
            mask=mask,
        )
        finished_return = jnp.where(done, envs.episode_return + timestep.reward, 0.0)
        stats = EpisodeStats(
            reward=stats.reward + timestep.reward.sum(),
            finished_return=stats.finished_return + finished_return.sum(),
            finished=stats.finished + done.sum(dtype=jnp.float32),
        )
        return (stepped, stats), transition

    nothing = EpisodeStats(*(jnp.zeros((), jnp.float32) for _ in EpisodeStats._fields))
    drawn = (chance.step_keys, chance.action_noise)
    (envs, stats), rollout = jax.lax.scan(step, (carry.envs, nothing), drawn)
    return envs, rollout._replace(value=values_of(carry.actor, rollout.obs, config)), stats


def values_of(
    actor: Actor, obs: Shaped[Array, "T B ..."], config: PPOConfig
) -> Float[Array, "T B"]:
    """Return the values of a whole rollout, `microbatch_size` rows at once.

    After the steps and not within them: a product of few rows takes a CPU as long to begin as to
    compute. In chunks: the activations of all rows would take more memory than learning does.
    """

    def values(rows: Shaped[Array, "rows ..."]) -> Float[Array, " rows"]:
        return value_of(actor.params, normalize_obs(actor.obs_stats, rows), config)

    chunks = obs.reshape(-1, microbatch_size(config), *obs.shape[2:])
    found: Array = jax.lax.map(values, chunks)
    return found.reshape(obs.shape[:2])


def mean_return(stats: EpisodeStats, *, env: Environment, num_env_steps: int) -> Float[Array, ""]:
    """Return the mean over finished episodes (NaN without any), or the mean reward per step."""
    if env.per_step_return:
        return stats.reward / num_env_steps
    return stats.finished_return / stats.finished


def _bounded(action: Shaped[Array, "B ..."], space: ActionSpace) -> Shaped[Array, "B ..."]:
    """Return actions as the environments take them: of the space's shape, within its bounds."""
    if isinstance(space, Discrete):
        return action
    low, high = jnp.asarray(space.low)[None, :], jnp.asarray(space.high)[None, :]
    return jnp.clip(action, low, high).reshape(-1, *space.shape)


def _final_value(actor: Actor, timestep: Timestep, config: PPOConfig) -> Float[Array, " B"]:
    """Return the value of the last observation where a time limit cut an episode, else 0."""
    cut = jnp.logical_and(timestep.truncated, jnp.logical_not(timestep.terminated))

    def value_of_last() -> Float[Array, " B"]:
        seen = normalize_obs(actor.obs_stats, timestep.obs)
        return jnp.where(cut, value_of(actor.params, seen, config), 0.0)

    value: Array = jax.lax.cond(
        jnp.any(cut),
        value_of_last,
        lambda: jnp.zeros(cut.shape, jnp.float32),
    )
    return value


def _where(condition: Array, chosen: Any, otherwise: Any) -> Array:
    """Choose along the leading axis for leaves of any rank."""
    condition = condition.reshape(condition.shape + (1,) * (chosen.ndim - condition.ndim))
    return jnp.where(condition, chosen, otherwise)
