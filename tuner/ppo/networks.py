"""The policy and the value function: two separate multilayer perceptrons.

Written out because they are two dozen lines of matrix products whose types and dtypes the rest
relies on. The two networks share nothing: merging them into one block-diagonal network measured
0.64 times the speed on a CPU.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

from envs.base import ActionSpace, Box
from tuner.ppo.activations import ACTIVATIONS
from tuner.ppo.affine import affine
from tuner.ppo.distributions import DiagonalGaussian, Distribution, categorical
from tuner.ppo.types import MLP, Layer, Params, PPOConfig

POLICY_SCALE = 0.01
VALUE_SCALE = 1.0
HIDDEN_SCALE = math.sqrt(2)
"""Scales of the orthogonal initialisation (arXiv 2006.05990): a policy head near zero starts the
policy near uniform, and a Gaussian one near mean 0."""
START_LOG_STD = 0.0


def init_params(
    key: PRNGKeyArray,
    config: PPOConfig,
    *,
    obs_shape: tuple[int, ...],
    action_space: ActionSpace,
) -> Params:
    """Draw orthogonal kernels and zero biases; the key is consumed.

    A policy over a box starts with σ = 1 in every component.
    """
    policy_key, value_key = jax.random.split(key)
    widths = (math.prod(obs_shape), *config.network)
    log_std = None
    if isinstance(action_space, Box):
        log_std = jnp.full((action_space.num_components,), START_LOG_STD, jnp.float32)
        num_outputs = action_space.num_components
    else:
        num_outputs = action_space.num_actions
    return Params(
        policy=_init_mlp(policy_key, (*widths, num_outputs), head_scale=POLICY_SCALE),
        value=_init_mlp(value_key, (*widths, 1), head_scale=VALUE_SCALE),
        log_std=log_std,
    )


def policy_of(
    params: Params,
    obs: Shaped[Array, "N ..."],
    config: PPOConfig,
    *,
    mask: Bool[Array, "N actions"] | None = None,
) -> Distribution:
    """Return the distribution of the action in each observation, float32.

    It is Gaussian where the parameters hold a `log_std`, else over the actions that `mask` allows.
    """
    outputs = _apply(params.policy, obs, config)
    if params.log_std is None:
        return categorical(outputs, mask)
    return DiagonalGaussian(outputs, params.log_std)


def sigma_share(log_std: Float[Array, " D"]) -> Float[Array, ""]:
    """Return the mean of σ over its start."""
    return jnp.exp(log_std - START_LOG_STD).mean()


def value_of(params: Params, obs: Shaped[Array, "N ..."], config: PPOConfig) -> Float[Array, " N"]:
    """Return the estimated discounted return from each observation, float32."""
    return _apply(params.value, obs, config)[:, 0]


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
    activation = ACTIVATIONS[config.activation]
    dtype = jnp.dtype(config.dtype)
    hidden = obs.reshape(obs.shape[0], -1).astype(dtype)
    for layer in mlp[:-1]:
        hidden = activation(affine(hidden, layer.kernel.astype(dtype), layer.bias.astype(dtype)))
    head = mlp[-1]
    outputs = affine(hidden, head.kernel.astype(dtype), head.bias.astype(dtype))
    return outputs.astype(jnp.float32)
