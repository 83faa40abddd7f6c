"""The learning rate by env-steps, so that configs of unequal batches anneal alike.

A schedule by updates would give a config with large batches another rate at the same env-step, and
a comparison at equal env-steps would then compare schedules.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tuner.ppo.types import Hyperparams, PPOConfig

MOST_ENV_STEPS = 2**32 - 1


def scheduled(
    hyperparams: Hyperparams, env_steps: Int[Array, ""], config: PPOConfig
) -> Hyperparams:
    """Return the hyperparameters of one update, with the mean learning rate over its env-steps.

    `linear`: the rate at env-step n is `learning_rate · max(0, 1 − n / lr_anneal_env_steps)`. All
    gradient steps of an update have the mean of that over its env-steps: however long updates are,
    their rates add up to the same for each env-step, and the last update that begins before the end
    still learns. Beyond the end the rate is 0: updates cost what they always cost, and leave the
    trained policy as it is.

    Args:
        hyperparams: As the carry holds them; `learning_rate` is the rate at the start.
        env_steps: Env-steps learned from so far.
        config: Uses `lr_schedule` and the size of a batch.
    """
    if config.lr_schedule == "constant":
        return hyperparams
    begun, end = env_steps.astype(jnp.float32), hyperparams.lr_anneal_env_steps
    before_end = jnp.clip(end - begun, 0.0, config.batch_size)
    at_their_middle = 1.0 - (begun + before_end / 2) / end
    mean: Float[Array, ""] = before_end / config.batch_size * at_their_middle
    return hyperparams._replace(learning_rate=hyperparams.learning_rate * mean)


def advanced(env_steps: Int[Array, ""], config: PPOConfig) -> Int[Array, ""]:
    """Return the count after one more update; it stays at its maximum rather than starting anew."""
    room = jnp.uint32(MOST_ENV_STEPS) - env_steps
    return env_steps + jnp.minimum(jnp.uint32(config.batch_size), room)
