"""The keys and the noise of one update, drawn ahead of its loops.

Apart from the rollout because a place in the program that draws takes 0.7 s of CPU time to
compile, and within the loop over steps a draw of a few numbers costs as much as one of thousands.
"""

from typing import NamedTuple

import jax
from jaxtyping import Array, PRNGKeyArray, Shaped

from envs.base import ActionSpace
from tuner.ppo.distributions import action_noise
from tuner.ppo.types import PPOConfig


class Chance(NamedTuple):
    """What one update draws.

    `next_key: []` is for the update after it, `epoch_keys: [E]` for its shuffles, `step_keys: [T]`
    for its environments, `action_noise: [T, B]` or `[T, B, D]` for its actions.
    """

    next_key: Array
    epoch_keys: Array
    step_keys: Array
    action_noise: Array


def draw(key: PRNGKeyArray, action_space: ActionSpace, config: PPOConfig) -> Chance:
    """Draw what an update needs; the key is consumed."""
    keys = jax.random.split(key, 2 + config.num_epochs + config.num_steps)
    return Chance(
        next_key=keys[0],
        epoch_keys=keys[2 : 2 + config.num_epochs],
        step_keys=keys[2 + config.num_epochs :],
        action_noise=action_noise(keys[1], action_space, (config.num_steps, config.num_envs)),
    )


def reset_keys(step_keys: Shaped[PRNGKeyArray, " B"]) -> Shaped[PRNGKeyArray, " B"]:
    """Return other keys than those of the steps, for resets that few steps need: their complements.

    Threefry is a cipher: what it makes of two different keys is independent.
    """
    words = ~jax.random.key_data(step_keys)
    keys: Array = jax.random.wrap_key_data(words, impl=jax.random.key_impl(step_keys))
    return keys
