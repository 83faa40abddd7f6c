"""The policy and the value function: two separate multilayer perceptrons.

Written out because they are two dozen lines of matrix products whose types and dtypes the rest
relies on. The two networks share nothing: merging them into one block-diagonal network measured
0.64 times the speed on a CPU.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from tuner.ppo.types import MLP, Layer, Params, PPOConfig

POLICY_SCALE = 0.01
VALUE_SCALE = 1.0
HIDDEN_SCALE = math.sqrt(2)
"""Scales of the orthogonal initialisation (arXiv 2006.05990): a policy head near zero starts the
policy near uniform."""


def init_params(
    key: PRNGKeyArray, config: PPOConfig, *, obs_shape: tuple[int, ...], num_actions: int
) -> Params:
    """Draw orthogonal kernels and zero biases; the key is consumed."""
    policy_key, value_key = jax.random.split(key)
    widths = (math.prod(obs_shape), *config.network)
    return Params(
        policy=_init_mlp(policy_key, (*widths, num_actions), head_scale=POLICY_SCALE),
        value=_init_mlp(value_key, (*widths, 1), head_scale=VALUE_SCALE),
    )


def logits_of(
    params: Params, obs: Shaped[Array, "N ..."], config: PPOConfig
) -> Float[Array, "N actions"]:
    """Return the unnormalised log-probabilities of the actions, float32."""
    return _apply(params.policy, obs, config)


def value_of(params: Params, obs: Shaped[Array, "N ..."], config: PPOConfig) -> Float[Array, " N"]:
    """Return the estimated discounted return from each observation, float32."""
    return _apply(params.value, obs, config)[:, 0]


def log_prob_of(
    log_probs: Float[Array, "N actions"], action: Int[Array, " N"]
) -> Float[Array, " N"]:
    """Return the entry of each row of `log_probs` that belongs to the action taken."""
    return jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]


def _init_mlp(key: PRNGKeyArray, widths: tuple[int, ...], *, head_scale: float) -> MLP:
    keys = jax.random.split(key, len(widths) - 1)
    scales = [HIDDEN_SCALE] * (len(widths) - 2) + [head_scale]
    return tuple(
        Layer(
            kernel=jax.nn.initializers.orthogonal(scale)(layer_key, (inputs, outputs), jnp.float32),
            bias=jnp.zeros((outputs,), jnp.float32),
        )
        for layer_key, scale, inputs, outputs in zip(
            keys, scales, widths[:-1], widths[1:], strict=True
        )
    )


def _apply(mlp: MLP, obs: Shaped[Array, "N ..."], config: PPOConfig) -> Float[Array, "N outputs"]:
    activation = {"tanh": jnp.tanh, "relu": jax.nn.relu}[config.activation]
    dtype = jnp.dtype(config.dtype)
    hidden = obs.reshape(obs.shape[0], -1).astype(dtype)
    for layer in mlp[:-1]:
        hidden = activation(_affine(layer, hidden, dtype))
    return _affine(mlp[-1], hidden, dtype).astype(jnp.float32)


def _affine(
    layer: Layer, inputs: Float[Array, "N inputs"], dtype: jnp.dtype
) -> Float[Array, "N outputs"]:
    return inputs @ layer.kernel.astype(dtype) + layer.bias.astype(dtype)[None, :]
