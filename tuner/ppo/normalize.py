"""Running statistics, and what is normalised by them: observations and rewards.

Statistics are of *raw* values and are merged once per update, from the whole batch. Observations
are seen through the statistics of before the update, in acting and in learning alike, so that the
ratio of an unchanged policy is 1. Rewards are divided, not centred, since that would change which
policy is best; nothing acts on them, so the batch at hand is among what they are divided by.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from tuner.ppo.types import Hyperparams, ReturnStats, RunningStats

OBS_CLIP = 10.0
"""Normalised observations are cut to ± this: a component that hardly varied may jump later."""
REWARD_CLIP = 10.0
"""Scaled rewards are, too, as in OpenAI's baselines: the first one after many zeros is enormous."""
VARIANCE_EPS = 1e-8


def fresh_stats(shape: tuple[int, ...]) -> RunningStats:
    """Return statistics of nothing: mean 0 and variance 1, which change no value within the clip.

    A first update so sees raw observations, cut to ± `OBS_CLIP` as any.
    """
    return RunningStats(
        num_values=jnp.zeros((), jnp.float32),
        mean=jnp.zeros(shape, jnp.float32),
        variance=jnp.ones(shape, jnp.float32),
    )


def fresh_return_stats(num_envs: int) -> ReturnStats:
    """Return the statistics of no rewards."""
    return ReturnStats(fresh_stats(()), jnp.zeros((num_envs,), jnp.float32))


def merge(stats: RunningStats, values: Shaped[Array, "T B *O"]) -> RunningStats:
    """Return the statistics of all values so far and of `[T, B]` new ones.

    The pairwise update of Chan, Golub and LeVeque (1979), with means in place of sums of squares:
    they stay of the size of the values, and float32 is enough however many those are.
    """
    values = values.astype(jnp.float32)
    num_new = values.shape[0] * values.shape[1]
    num_values = stats.num_values + num_new
    weight = num_new / num_values
    difference = values.mean(axis=(0, 1)) - stats.mean
    spread_between = jnp.square(difference) * weight * (1 - weight)
    return RunningStats(
        num_values=num_values,
        mean=stats.mean + difference * weight,
        variance=stats.variance
        + (values.var(axis=(0, 1)) - stats.variance) * weight
        + spread_between,
    )


def normalize_obs(
    stats: RunningStats | None, obs: Shaped[Array, "*batch_and_O"]
) -> Shaped[Array, "*batch_and_O"]:
    """Return observations with mean 0 and deviation 1 by the statistics; as they are for None."""
    if stats is None:
        return obs
    leading = (1,) * (obs.ndim - stats.mean.ndim)
    mean = stats.mean.reshape(leading + stats.mean.shape)
    scale = jax.lax.rsqrt(stats.variance + VARIANCE_EPS).reshape(mean.shape)
    return jnp.clip((obs.astype(jnp.float32) - mean) * scale, -OBS_CLIP, OBS_CLIP)


def scale_reward(
    stats: ReturnStats,
    reward: Float[Array, "T B"],
    done: Bool[Array, "T B"],
    *,
    hyperparams: Hyperparams,
) -> tuple[ReturnStats, Float[Array, "T B"]]:
    """Return the merged statistics, and the rewards over the deviation of discounted returns, cut.

    Args:
        stats: Of all rewards before.
        reward: Raw rewards.
        done: Where an episode ended; its discounted return ends there too.
        hyperparams: Uses `gamma`.
    """

    def discount(
        discounted: Float[Array, " B"], step: tuple[Float[Array, " B"], Bool[Array, " B"]]
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        step_reward, step_done = step
        discounted = hyperparams.gamma * discounted + step_reward
        return jnp.where(step_done, 0.0, discounted), discounted

    discounted, returns = jax.lax.scan(discount, stats.discounted, (reward, done))
    merged = merge(stats.stats, returns)
    scaled = reward * jax.lax.rsqrt(merged.variance + VARIANCE_EPS)
    return ReturnStats(merged, discounted), jnp.clip(scaled, -REWARD_CLIP, REWARD_CLIP)
