import jax
import jax.numpy as jnp

from tests.envs.jaxprs import impurities


def test_a_callback_inside_a_loop_inside_a_branch_is_found() -> None:
    def body(total: jax.Array, value: jax.Array) -> tuple[jax.Array, None]:
        jax.debug.callback(lambda _: None, value)
        return total + value, None

    def program(values: jax.Array) -> jax.Array:
        return jax.lax.cond(
            values[0] > 0, lambda: jax.lax.scan(body, 0.0, values)[0], lambda: jnp.float32(0)
        )

    assert impurities(program, jnp.ones(3)) == ["debug_callback"]


def test_a_64_bit_value_is_found() -> None:
    with jax.enable_x64(True):
        found = impurities(lambda x: x.astype(jnp.float64) * 2, jnp.float32(1))
    assert any("float64" in line for line in found)
    assert impurities(lambda x: x * 2, jnp.float32(1)) == []
