import jax
import jax.numpy as jnp
import pytest

from tuner.ppo.affine import NARROW, affine


@pytest.mark.parametrize("num_outputs", [1, 3, NARROW, NARROW + 1])
def test_value_and_gradient_are_those_of_the_plain_product(num_outputs: int) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(keys[0], (20, 5))
    kernel = jax.random.normal(keys[1], (5, num_outputs))
    bias = jax.random.normal(keys[2], (num_outputs,))
    weights = jax.random.normal(keys[3], (20, num_outputs))

    def ours(*arguments: jax.Array) -> jax.Array:
        return (jnp.tanh(affine(*arguments)) * weights).sum()

    def plain(inputs: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return (jnp.tanh(inputs @ kernel + bias[None, :]) * weights).sum()

    value, gradients = jax.value_and_grad(ours, argnums=(0, 1, 2))(inputs, kernel, bias)
    expected, expected_gradients = jax.value_and_grad(plain, argnums=(0, 1, 2))(
        inputs, kernel, bias
    )
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        assert got.dtype == wanted.dtype
        assert jnp.allclose(got, wanted, rtol=1e-5, atol=1e-5)
