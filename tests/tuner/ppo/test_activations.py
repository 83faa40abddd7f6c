import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tuner.ppo.activations import tanh
from tuner.ppo.platform import written_for

SMALL = np.logspace(-30, 1, 10_001)
NUMBERS = np.concatenate([np.linspace(-12, 12, 100_001), SMALL, -SMALL]).astype(np.float32)


def test_the_tangent_is_as_near_to_the_true_one_as_the_compilers() -> None:
    true = np.tanh(NUMBERS.astype(np.float64))
    ours, compilers = (
        np.abs(np.asarray(jax.jit(f)(NUMBERS)).astype(np.float64) - true) for f in (tanh, jnp.tanh)
    )
    assert ours.max() < 3.2e-7
    assert ours.max() < 1.3 * compilers.max()
    assert np.abs(np.asarray(tanh(NUMBERS))).max() <= 1.0


def test_its_derivative_is_that_of_the_tangent() -> None:
    ours, plain = (jax.vmap(jax.grad(f))(NUMBERS) for f in (tanh, jnp.tanh))
    assert np.abs(ours - plain).max() < 1e-6


def test_what_has_diverged_stays_so() -> None:
    found = tanh(jnp.array([jnp.nan, jnp.inf, -jnp.inf, 0.0]))
    assert np.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([1.0, -1.0, 0.0], abs=3e-7)


def test_other_types_and_devices_keep_the_compilers() -> None:
    narrow = jnp.array([0.5], jnp.bfloat16)
    assert tanh(narrow).dtype == jnp.bfloat16
    assert "_rational_tanh" in str(jax.make_jaxpr(lambda x: tanh(x))(jnp.array([0.5])))
    assert "_rational_tanh" not in str(jax.make_jaxpr(lambda x: tanh(x))(narrow))
    with written_for("cuda"):
        assert "_rational_tanh" not in str(jax.make_jaxpr(lambda x: tanh(x))(jnp.array([0.5])))
