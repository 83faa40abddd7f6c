import math

import jax
import jax.numpy as jnp
import pytest

from envs.base import Box, Discrete
from tuner.ppo.distributions import Categorical, DiagonalGaussian
from tuner.ppo.networks import init_params, policy_of, sigma_share, value_of
from tuner.ppo.types import Activation, Layer, Params, PPOConfig

CONFIG = PPOConfig(num_envs=1, num_steps=1, num_minibatches=1, num_epochs=1, network=(32, 16))


def test_kernels_are_orthogonal_with_the_scale_of_their_place() -> None:
    params = init_params(jax.random.key(0), CONFIG, obs_shape=(2, 4), action_space=Discrete(3))
    assert [layer.kernel.shape for layer in params.policy] == [(8, 32), (32, 16), (16, 3)]
    assert [layer.kernel.shape for layer in params.value] == [(8, 32), (32, 16), (16, 1)]
    scales = [math.sqrt(2), math.sqrt(2), 0.01]
    for layer, scale in zip(params.policy, scales, strict=True):
        singular = jnp.linalg.svd(layer.kernel, compute_uv=False)
        assert jnp.allclose(singular, scale, rtol=1e-4)
        assert float(jnp.abs(layer.bias).max()) == 0
    assert float(jnp.linalg.norm(params.value[-1].kernel)) == pytest.approx(1, rel=1e-4)


def test_one_hidden_unit_by_hand() -> None:
    # value = 3·tanh(2·0.5 − 1 + 0) + 4 = 4 at 0.5, and with relu at 1: 3·max(0, 2 − 1) + 4 = 7.
    mlp = (
        Layer(jnp.array([[2.0]]), jnp.array([-1.0])),
        Layer(jnp.array([[3.0]]), jnp.array([4.0])),
    )
    params = Params(policy=mlp, value=mlp)
    tanh = PPOConfig(1, 1, 1, 1, network=(1,))
    relu = PPOConfig(1, 1, 1, 1, network=(1,), activation="relu")
    assert value_of(params, jnp.array([[0.5]]), tanh).tolist() == [4.0]
    assert value_of(params, jnp.array([[1.0]]), relu).tolist() == [7.0]


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.bool_, jnp.float32])
def test_observations_of_any_rank_and_type_are_flattened(dtype: jnp.dtype) -> None:
    params = init_params(jax.random.key(0), CONFIG, obs_shape=(2, 2, 3), action_space=Discrete(3))
    obs = jnp.ones((5, 2, 2, 3), dtype)
    policy, same = (policy_of(params, o, CONFIG) for o in (obs, obs.astype(jnp.float32)))
    assert isinstance(policy, Categorical)
    assert policy.log_probs.shape == (5, 3)
    assert jnp.array_equal(policy.log_probs, same.log_probs)


def test_bfloat16_computes_low_and_returns_float32() -> None:
    config = PPOConfig(1, 1, 1, 1, network=(32, 16), dtype="bfloat16")
    params = init_params(jax.random.key(0), config, obs_shape=(4,), action_space=Discrete(3))
    obs = jax.random.normal(jax.random.key(1), (8, 4))
    low, full = value_of(params, obs, config), value_of(params, obs, CONFIG)
    assert low.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert not jnp.array_equal(low, full)
    assert jnp.allclose(low, full, atol=0.05)


def test_a_box_gives_a_gaussian_with_a_sigma_of_one() -> None:
    box = Box((-1.0,) * 3, (1.0,) * 3, (3, 1))
    params = init_params(jax.random.key(0), CONFIG, obs_shape=(4,), action_space=box)
    policy = policy_of(params, jnp.ones((5, 4)), CONFIG)
    assert isinstance(policy, DiagonalGaussian)
    assert policy.mean.shape == (5, 3)
    assert policy.log_std.tolist() == [0, 0, 0]
    discrete = init_params(jax.random.key(0), CONFIG, obs_shape=(4,), action_space=Discrete(3))
    assert discrete.log_std is None


def test_sigma_share_by_hand() -> None:
    # σ of ½ and ¼, both 1 at the start.
    assert float(sigma_share(jnp.log(jnp.array([0.5, 0.25])))) == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("tanh", -math.tanh(1)),
        ("relu", 0.0),
        ("elu", math.exp(-1) - 1),
        ("swish", -1 / (1 + math.e)),
    ],
)
def test_activations_at_minus_one(activation: Activation, expected: float) -> None:
    identity = Layer(jnp.ones((1, 1)), jnp.zeros(1))
    params = Params(policy=(identity, identity), value=(identity, identity))
    config = PPOConfig(1, 1, 1, 1, network=(1,), activation=activation)
    assert float(value_of(params, jnp.array([[-1.0]]), config)[0]) == pytest.approx(expected)
