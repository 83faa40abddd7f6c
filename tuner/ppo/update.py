"""Learning from one batch: epochs of shuffled minibatches, each one gradient step."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from tuner.ppo.loss import LossMetrics, ppo_loss
from tuner.ppo.platform import for_cpu
from tuner.ppo.rows import Rows, narrow_leaves, side_by_side, with_wide_leaves
from tuner.ppo.shuffle import shuffle
from tuner.ppo.types import Batch, Hyperparams, Params, PPOConfig

CPU_MICROBATCH = 1024
"""Rows whose activations fit a core's cache: 1.3 times the speed of whole minibatches at large
batches on a CPU."""
SMALLEST_AUTOMATIC_SHARE = 4
STD_EPS = 1e-8


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: Params
    opt_state: Any


class StepMetrics(NamedTuple):
    """One gradient step: the parts of the loss, and the global norm before clipping, `[]`."""

    loss: LossMetrics
    grad_norm: Array


def microbatch_size(config: PPOConfig) -> int:
    """Return how many rows' gradient is computed at once: a divisor of the minibatch.

    The largest one that is not above `config.microbatch`; without a wish, the whole minibatch on
    an accelerator (there it would save memory, not time) and about 1,024 rows on a CPU. A
    minibatch without a divisor near that is not cut up at all.
    """
    rows = config.minibatch_size
    if config.microbatch is not None:
        return _largest_divisor(rows, config.microbatch)
    if not for_cpu():
        return rows
    automatic = _largest_divisor(rows, CPU_MICROBATCH)
    return automatic if automatic * SMALLEST_AUTOMATIC_SHARE >= min(rows, CPU_MICROBATCH) else rows


def optimizer(hyperparams: Hyperparams) -> optax.GradientTransformation:
    """Return Adam after clipping by global norm, both from traced values."""
    return optax.chain(
        optax.clip_by_global_norm(hyperparams.max_grad_norm),
        optax.scale_by_adam(eps=hyperparams.adam_eps),
        optax.scale_by_learning_rate(hyperparams.learning_rate),
    )


def learn(
    learner: Learner,
    batch: Batch,
    *,
    epoch_keys: Shaped[PRNGKeyArray, " E"],
    hyperparams: Hyperparams,
    config: PPOConfig,
) -> tuple[Learner, StepMetrics]:
    """Take `num_epochs × num_minibatches` gradient steps on one batch; the keys are consumed.

    Args:
        learner: Parameters and optimiser state.
        batch: `N` env-steps, flattened.
        epoch_keys: Each shuffles an epoch.
        hyperparams: Traced scalars.
        config: Static sizes.

    Returns:
        The learner, and the metrics averaged over all gradient steps.
    """
    rows = side_by_side(batch)
    step = partial(_minibatch_step, rows=rows, hyperparams=hyperparams, config=config)

    def epoch(learner: Learner, epoch_key: PRNGKeyArray) -> tuple[Learner, StepMetrics]:
        order = shuffle(epoch_key, config.batch_size)
        return jax.lax.scan(step, learner, order.reshape(config.num_minibatches, -1))

    learner, metrics = jax.lax.scan(epoch, learner, epoch_keys)
    return learner, jax.tree.map(jnp.mean, metrics)


def _minibatch_step(
    learner: Learner,
    indices: Int[Array, " M"],
    *,
    rows: Rows,
    hyperparams: Hyperparams,
    config: PPOConfig,
) -> tuple[Learner, StepMetrics]:
    grads, loss_metrics = minibatch_gradient(
        learner.params, rows, indices=indices, hyperparams=hyperparams, config=config
    )
    updates, opt_state = optimizer(hyperparams).update(grads, learner.opt_state)
    params = optax.apply_updates(learner.params, updates)
    return Learner(params, opt_state), StepMetrics(loss_metrics, optax.tree.norm(grads))


def minibatch_gradient(
    params: Params,
    rows: Rows,
    *,
    indices: Int[Array, " M"],
    hyperparams: Hyperparams,
    config: PPOConfig,
) -> tuple[Params, LossMetrics]:
    """Return the gradient of the mean loss over the rows `indices`, and the loss's parts.

    Advantages are normalised over the whole minibatch first; the gradient is then the mean of the
    gradients of equal chunks of `microbatch_size(config)` rows, which is the same number. Wide
    leaves are gathered chunk by chunk; the narrow ones of the whole minibatch are held at once,
    which no `microbatch` lowers.
    """
    minibatch = narrow_leaves(rows, indices)
    minibatch = minibatch._replace(advantage=_normalise(minibatch.advantage))
    num_chunks = config.minibatch_size // microbatch_size(config)

    def chunk_gradient(chunk: tuple[Int[Array, " rows"], Batch]) -> tuple[Params, LossMetrics]:
        chunk_indices, narrow = chunk
        gradient: tuple[Params, LossMetrics] = jax.grad(ppo_loss, has_aux=True)(
            params, with_wide_leaves(narrow, rows, chunk_indices), hyperparams, config
        )
        return gradient

    if num_chunks == 1:
        return chunk_gradient((indices, minibatch))

    chunks = jax.tree.map(
        lambda leaf: leaf.reshape(num_chunks, -1, *leaf.shape[1:]), (indices, minibatch)
    )
    zero = jnp.zeros((), jnp.float32)
    nothing = (
        jax.tree.map(jnp.zeros_like, params),
        LossMetrics(*[zero] * len(LossMetrics._fields)),
    )

    def accumulate(total: Any, chunk: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, chunk_gradient(chunk)), None

    total, _ = jax.lax.scan(accumulate, nothing, chunks)
    mean: tuple[Params, LossMetrics] = jax.tree.map(lambda leaf: leaf / num_chunks, total)
    return mean


def _normalise(advantage: Float[Array, " M"]) -> Float[Array, " M"]:
    return (advantage - advantage.mean()) / (advantage.std() + STD_EPS)


def _largest_divisor(number: int, bound: int) -> int:
    return next(size for size in range(min(number, bound), 0, -1) if number % size == 0)
