"""PPO's clipped surrogate loss (arXiv 1707.06347, equations 7 and 9)."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from tuner.ppo.networks import policy_of, value_of
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
    loss is clipped only if asked for (`_value_loss`): it did not help in a large study (arXiv
    2006.05990). The divergence is estimated by `E[(ρ − 1) − log ρ]`, which is never negative.

    Args:
        params: Parameters to differentiate by.
        batch: Rows whose advantages are normalised already.
        hyperparams: Uses `clip_eps`, `vf_coef`, `ent_coef` and `vf_clip_eps`.
        config: Activation and dtype of the networks.

    Returns:
        The loss and its parts.
    """
    policy = policy_of(params, batch.obs, config, mask=batch.mask)
    values = value_of(params, batch.obs, config)

    log_ratio = policy.log_prob(batch.action) - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1 - hyperparams.clip_eps, 1 + hyperparams.clip_eps)
    surrogate = jnp.minimum(ratio * batch.advantage, clipped * batch.advantage)

    metrics = LossMetrics(
        policy_loss=-surrogate.mean(),
        value_loss=_value_loss(values, batch, hyperparams),
        entropy=policy.entropy().mean(),
        approx_kl=((ratio - 1) - log_ratio).mean(),
        clip_fraction=(jnp.abs(ratio - 1) > hyperparams.clip_eps).mean(dtype=jnp.float32),
    )
    loss = (
        metrics.policy_loss
        + hyperparams.vf_coef * metrics.value_loss
        - hyperparams.ent_coef * metrics.entropy
    )
    return loss, metrics


def _value_loss(
    values: Float[Array, " N"], batch: Batch, hyperparams: Hyperparams
) -> Float[Array, ""]:
    """Return ½·E[(v − target)²]; the worse of that and of v held near the old value, if clipped.

    With `batch.value` the error is `max((v − target)², (v_old + clip(v − v_old, ±vf_clip_eps) −
    target)²)`, as in OpenAI's baselines: no gain beyond the clip is rewarded.
    """
    error = jnp.square(values - batch.target)
    if batch.value is not None:
        eps = hyperparams.vf_clip_eps
        held = batch.value + jnp.clip(values - batch.value, -eps, eps)
        error = jnp.maximum(error, jnp.square(held - batch.target))
    return 0.5 * error.mean()
