import jax
import jax.numpy as jnp
import pytest

from tuner.ppo.affine import FEW_OUTPUTS, FEW_TERMS, NARROW, affine, matmul


@pytest.mark.parametrize("num_inputs", [1, FEW_TERMS, FEW_TERMS + 1])
@pytest.mark.parametrize("num_outputs", [1, FEW_OUTPUTS, FEW_OUTPUTS + 1, NARROW, NARROW + 1])
def test_value_and_gradient_are_those_of_the_plain_product(
    num_inputs: int, num_outputs: int
) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = jax.random.normal(keys[0], (20, num_inputs))
    kernel = jax.random.normal(keys[1], (num_inputs, num_outputs))
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
    # A sum of up to 340 numbers of about 1, each rounded to 6e-8.
    assert float(value) == pytest.approx(float(expected), rel=1e-6, abs=1e-5)
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        assert got.dtype == wanted.dtype
        assert jnp.allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_what_is_narrower_than_float32_is_added_up_in_it() -> None:
    keys = jax.random.split(jax.random.key(1), 2)
    inputs = jax.random.normal(keys[0], (50, FEW_TERMS)).astype(jnp.bfloat16)
    kernel = jax.random.normal(keys[1], (FEW_TERMS, 3)).astype(jnp.bfloat16)
    got = affine(inputs, kernel, jnp.zeros((3,), jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    assert (got == inputs @ kernel).all()


@pytest.mark.parametrize("inner", [FEW_TERMS, FEW_TERMS + 1])
@pytest.mark.parametrize("columns", [FEW_OUTPUTS, FEW_OUTPUTS + 1])
def test_a_product_is_the_same_in_every_way(inner: int, columns: int) -> None:
    keys = jax.random.split(jax.random.key(2), 2)
    left = jax.random.normal(keys[0], (300, inner))
    right = jax.random.normal(keys[1], (inner, columns))
    assert jnp.allclose(matmul(left, right), left @ right, rtol=1e-5, atol=1e-5)
