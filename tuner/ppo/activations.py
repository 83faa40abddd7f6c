"""The activations of hidden layers, and a hyperbolic tangent that a CPU is quick at.

Apart from the networks because how a tangent is computed is a matter of speed alone: what it takes
beside XLA's own, `benchmarks/ppo_pieces.py` measures.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tuner.ppo.platform import for_cpu

SATURATED = 7.905311
"""Where the approximation is held: 1 − tanh is 3e-7 there, a few of float32's roundings."""
NUMERATOR = (
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
DENOMINATOR = (
    1.19825839466702e-06,
    1.18534705686654e-04,
    2.26843463243900e-03,
    4.89352518554385e-03,
)
"""Of tanh(x) / x in x², the highest power first: Eigen's approximation for float32, which XLA takes
too. At most 3.2e-7 off the true value, XLA's own 2.8e-7."""


def tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the hyperbolic tangent; NaN of NaN."""
    if for_cpu() and x.dtype == jnp.float32:
        return _rational_tanh(x)
    return jnp.tanh(x)


@jax.custom_jvp
def _rational_tanh(x: Array) -> Array:
    held = jax.lax.clamp(jnp.float32(-SATURATED), x, jnp.float32(SATURATED))
    square = held * held
    return held * _polynomial(NUMERATOR, square) / _polynomial(DENOMINATOR, square)


@_rational_tanh.defjvp
def _derivative(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = _rational_tanh(*primals)
    return y, tangents[0] * ((1 - y) * (1 + y))


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    value: Array = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "swish": jax.nn.swish,
}
