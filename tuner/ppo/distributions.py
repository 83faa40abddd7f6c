"""The two distributions that actions are drawn from.

Apart from the networks because the loss, the rollout and the evaluation ask them the same three
questions, `sample`, `log_prob` and `entropy`, and none of them cares which of the two it asks.
"""

import math
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

FORBIDDEN_LOGIT = -1e9
"""In place of a forbidden action's logit. Its probability is exactly 0 in float32, and, being
finite, 0 times its logarithm is 0, where minus infinity would make it NaN."""
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Categorical(NamedTuple):
    """One of some numbered actions; `log_probs: [N, actions]` are normalised. See `categorical`."""

    log_probs: Array

    def sample(self, key: PRNGKeyArray) -> Int[Array, " N"]:
        """Draw an action from each row; the key is consumed."""
        return jax.random.categorical(key, self.log_probs).astype(jnp.int32)

    def log_prob(self, action: Int[Array, " N"]) -> Float[Array, " N"]:
        """Return the logarithm of the probability of the action taken."""
        return jnp.take_along_axis(self.log_probs, action[:, None], axis=1)[:, 0]

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

    def sample(self, key: PRNGKeyArray) -> Float[Array, "N D"]:
        """Draw an action from each row; the key is consumed."""
        noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
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
