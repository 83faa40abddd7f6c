"""Generalised advantage estimation (arXiv 1506.02438), with time limits told from endings."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tuner.ppo.types import Hyperparams, Transition


def gae(
    rollout: Transition, last_value: Float[Array, " B"], hyperparams: Hyperparams
) -> tuple[Float[Array, "T B"], Float[Array, "T B"]]:
    """Return advantages and value targets.

    `δ_t = r_t + γ·v_next − v_t` and `A_t = δ_t + γ·λ·(1 − done_t)·A_{t+1}`. The next value is
    `v_{t+1}` within an episode, 0 where it terminated, and the value of its last observation where
    a time limit cut it (`rollout.final_value`).

    Args:
        rollout: Transitions, `[T, B, …]`.
        last_value: Value of the observation after the last step.
        hyperparams: Uses `gamma` and `gae_lambda`.

    Returns:
        The advantages, and the targets `A_t + v_t`, both `[T, B]`.
    """
    values_after = jnp.concatenate([rollout.value[1:], last_value[None]])
    next_values = jnp.where(rollout.done, rollout.final_value, values_after)
    deltas = rollout.reward + hyperparams.gamma * next_values - rollout.value
    decay = hyperparams.gamma * hyperparams.gae_lambda * (1.0 - rollout.done)

    def accumulate(
        advantage: Float[Array, " B"], step: tuple[Float[Array, " B"], Float[Array, " B"]]
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        delta, step_decay = step
        advantage = delta + step_decay * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(
        accumulate, jnp.zeros_like(last_value), (deltas, decay), reverse=True
    )
    return advantages, advantages + rollout.value
