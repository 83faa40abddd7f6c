"""The keys and the noise of one update, drawn ahead of its loops and all at once.

Apart from the rollout because a place in the program that draws takes 0.7 s of CPU time to
compile, and within the loop over steps a draw of a few numbers costs as much as one of thousands.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt32

from envs.base import ActionSpace
from tuner.ppo.distributions import noise_of, noise_shape
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
    """Draw what an update needs, as words of which keys and noise are made; the key is consumed."""
    num_keys, epochs = 1 + config.num_epochs + config.num_steps, config.num_epochs
    num_key_words = num_keys * jax.random.key_data(key).size
    shape = noise_shape(action_space, (config.num_steps, config.num_envs))
    words = jax.random.bits(key, (num_key_words + math.prod(shape),), jnp.uint32)
    keys = _keys_of(words[:num_key_words].reshape(num_keys, -1), like=key)
    return Chance(
        next_key=keys[0],
        epoch_keys=keys[1 : 1 + epochs],
        step_keys=keys[1 + epochs :],
        action_noise=noise_of(words[num_key_words:].reshape(shape), action_space),
    )


def reset_key(step_key: PRNGKeyArray) -> PRNGKeyArray:
    """Return another key than that of a step, for resets that few steps need: its complement.

    Threefry is a cipher: what it makes of two different keys is independent.
    """
    return _keys_of(~jax.random.key_data(step_key), like=step_key)


def _keys_of(words: UInt32[Array, "... words"], *, like: PRNGKeyArray) -> PRNGKeyArray:
    """Return words as keys of the kind that `like` is: typed, or an array of words."""
    if not jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        return words
    keys: Array = jax.random.wrap_key_data(words, impl=jax.random.key_impl(like))
    return keys
