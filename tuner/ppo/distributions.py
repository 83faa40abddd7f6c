"""The two distributions that actions are drawn from.

Apart from the networks because the loss, the rollout and the evaluation ask them the same three
questions, `sample`, `log_prob` and `entropy`, and none of them cares which of the two it asks.
"""

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

from envs.base import ActionSpace, Discrete

FORBIDDEN_LOGIT = -1e9
"""In place of a forbidden action's logit. Its probability is exactly 0 in float32, and, being
finite, 0 times its logarithm is 0, where minus infinity would make it NaN."""
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Categorical(NamedTuple):
    """One of some numbered actions; `log_probs: [N, actions]` are normalised. See `categorical`."""

    log_probs: Array

    def sample(self, noise: Float[Array, " N"]) -> Int[Array, " N"]:
        """Choose an action in each row: the one in whose share of [0, 1) its noise falls."""
        shares = jnp.cumsum(jnp.exp(self.log_probs), axis=1)
        # Scaled by the last, which may be a rounding below 1: no noise lies beyond all shares.
        reached = shares <= noise[:, None] * shares[:, -1:]
        return reached.sum(axis=1, dtype=jnp.int32)

    def log_prob(self, action: Int[Array, " N"]) -> Float[Array, " N"]:
        """Return the logarithm of the probability of the action taken."""
        # Not by indexing, whose gradient is a scatter, row after row.
        is_taken = jnp.arange(self.log_probs.shape[1])[None, :] == action[:, None]
        return jnp.where(is_taken, self.log_probs, 0.0).sum(axis=1)

    def entropy(self) -> Float[Array, " N"]:
        """Return the entropy in nats, over the allowed actions."""
        return -(jnp.exp(self.log_probs) * self.log_probs).sum(axis=1)


class DiagonalGaussian(NamedTuple):
    """Independent real components: `mean: [N, D]`, and `log_std: [D]` the same in every state.

    Its actions are not bounded: whoever steps an environment clips them, and their probability
    stays that of what was sampled.
    """

    mean: Array
    log_std: Array

    def sample(self, noise: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """Choose an action in each row: its noise, scaled and moved."""
        return self.mean + jnp.exp(self.log_std)[None, :] * noise

    def log_prob(self, action: Float[Array, "N D"]) -> Float[Array, " N"]:
        """Return the logarithm of the density at the action taken."""
        distance = (action - self.mean) * jnp.exp(-self.log_std)[None, :]
        constant = (self.log_std + HALF_LOG_2PI).sum()
        return -0.5 * jnp.square(distance).sum(axis=1) - constant

    def entropy(self) -> Float[Array, " N"]:
        """Return the differential entropy in nats, which is negative for a narrow policy."""
        entropy = (self.log_std + HALF_LOG_2PI + 0.5).sum()
        return jnp.full(self.mean.shape[:1], entropy)


Distribution: TypeAlias = Categorical | DiagonalGaussian


def action_noise(
    key: PRNGKeyArray, action_space: ActionSpace, shape: tuple[int, ...]
) -> Float[Array, "..."]:
    """Draw what `sample` makes actions of; the key is consumed.

    Returns:
        As `noise_of`, `[*shape]` for numbered actions, else `[*shape, D]`.
    """
    words = jax.random.bits(key, noise_shape(action_space, shape), jnp.uint32)
    return noise_of(words, action_space)


def noise_shape(action_space: ActionSpace, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the noise of `shape` actions: a number each, or one a component."""
    if isinstance(action_space, Discrete):
        return shape
    return (*shape, action_space.num_components)


def noise_of(words: UInt32[Array, "..."], action_space: ActionSpace) -> Float[Array, "..."]:
    """Return random words as noise: uniform in (0, 1) for numbered actions, else standard normal.

    A uniform number is the middle of one of 2²³ equal parts of (0, 1), a normal one its quantile.
    `jax.random` does about the same, of words that it draws itself.
    """
    uniform = ((words >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
    if isinstance(action_space, Discrete):
        return uniform
    return math.sqrt(2) * jax.lax.erf_inv(2 * uniform - 1)


def categorical(
    logits: Float[Array, "N actions"], mask: Bool[Array, "N actions"] | None
) -> Categorical:
    """Return the distribution of some logits over the allowed actions; all, where `mask` is None.

    A masked policy stays a policy whose gradient is sound (arXiv 2006.14171). Every row of a mask
    must allow an action.
    """
    if mask is not None:
        logits = jnp.where(mask, logits, FORBIDDEN_LOGIT)
    return Categorical(jax.nn.log_softmax(logits))


def max_entropy(mask: Bool[Array, "N actions"]) -> Float[Array, " N"]:
    """Return the entropy of the uniform choice among the allowed actions, in nats.

    It is 0 where one action is allowed: such states add nothing to a mean of either entropy, so
    that the ratio of the means is over the states that leave a choice.
    """
    return jnp.log(mask.sum(axis=-1, dtype=jnp.float32))
