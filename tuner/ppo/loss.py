"""PPO's clipped surrogate loss (arXiv 1707.06347, equations 7 and 9)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tuner.ppo.networks import log_prob_of, logits_of, value_of
from tuner.ppo.types import Batch, Hyperparams, Params, PPOConfig


class LossMetrics(NamedTuple):
    """Parts of the loss, each the mean over the rows, `[]`."""

    policy_loss: Array
    value_loss: Array
    entropy: Array
    approx_kl: Array
    clip_fraction: Array


def ppo_loss(
    params: Params, batch: Batch, hyperparams: Hyperparams, config: PPOConfig
) -> tuple[Float[Array, ""], LossMetrics]:
    """Return the loss of some rows, as means, so that equal chunks of a minibatch average to it.

    `L = −E[min(ρ·A, clip(ρ, 1−ε, 1+ε)·A)] + vf_coef·½·E[(v − target)²] − ent_coef·E[H]`. The value
    loss is not clipped: clipping it did not help in a large study (arXiv 2006.05990). The
    divergence is estimated by `E[(ρ − 1) − log ρ]`, which is never negative.

    Args:
        params: Parameters to differentiate by.
        batch: Rows whose advantages are normalised already.
        hyperparams: Uses `clip_eps`, `vf_coef` and `ent_coef`.
        config: Activation and dtype of the networks.

    Returns:
        The loss and its parts.
    """
    log_probs = jax.nn.log_softmax(logits_of(params, batch.obs, config))
    values = value_of(params, batch.obs, config)

    log_ratio = log_prob_of(log_probs, batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - hyperparams.clip_eps, 1 + hyperparams.clip_eps)
    surrogate = jnp.minimum(ratio * batch.advantage, clipped * batch.advantage)

    metrics = LossMetrics(
        policy_loss=-surrogate.mean(),
        value_loss=0.5 * jnp.square(values - batch.target).mean(),
        entropy=-(jnp.exp(log_probs) * log_probs).sum(axis=1).mean(),
        approx_kl=((ratio - 1) - log_ratio).mean(),
        clip_fraction=(jnp.abs(ratio - 1) > hyperparams.clip_eps).mean(dtype=jnp.float32),
    )
    loss = (
        metrics.policy_loss
        + hyperparams.vf_coef * metrics.value_loss
        - hyperparams.ent_coef * metrics.entropy
    )
    return loss, metrics
