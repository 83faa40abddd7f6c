"""A layer's affine map and its gradient, as products that a CPU is quick at.

Apart from the networks because it is a matter of speed alone: the numbers are those of
`inputs @ kernel + bias`. What each way takes beside the compiler's own: `benchmarks/ppo_pieces.py`.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tuner.ppo.platform import for_cpu

NARROW = 16
"""Outputs up to which a kernel's gradient is computed one output at a time."""
FEW_OUTPUTS = 2
"""Outputs up to which a product is computed one output at a time."""
FEW_TERMS = 8
"""Terms up to which a product is summed one term after another."""


def affine(
    inputs: Float[Array, "N inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"],
) -> Float[Array, "N outputs"]:
    """Return `inputs @ kernel + bias`."""
    if for_cpu():
        return _affine_on_cpu(inputs, kernel, bias)
    return inputs @ kernel + bias[None, :]


def matmul(
    left: Float[Array, "N inner"], right: Float[Array, "inner columns"]
) -> Float[Array, "N columns"]:
    """Return `left @ right`, in the quicker way for its sizes."""
    inner, columns = right.shape
    if not for_cpu():
        return left @ right
    if columns <= FEW_OUTPUTS:
        return jnp.stack([left @ right[:, column] for column in range(columns)], axis=1)
    # A product adds narrower types up in float32; a sum by hand would round every term.
    if inner <= FEW_TERMS and left.dtype == jnp.float32:
        terms = (left[:, i, None] * right[i][None, :] for i in range(inner))
        return functools.reduce(operator.add, terms)
    return left @ right


def kernel_gradient(
    inputs: Float[Array, "N inputs"], grads: Float[Array, "N outputs"]
) -> Float[Array, "inputs outputs"]:
    """Return `inputsᵀ @ grads`, in the quicker way for so many outputs."""
    if grads.shape[1] > NARROW or not for_cpu():
        return inputs.T @ grads
    # Not `inputs.T @ column`: that takes 55 µs where this takes 4, and 1,534 for sixteen outputs.
    return jnp.stack([grads[:, output] @ inputs for output in range(grads.shape[1])], axis=1)


def bias_gradient(grads: Float[Array, "N outputs"]) -> Float[Array, " outputs"]:
    """Return the sum of the rows, as a product."""
    return jnp.ones(grads.shape[:1], grads.dtype) @ grads


@jax.custom_vjp
def _affine_on_cpu(inputs: Array, kernel: Array, bias: Array) -> Array:
    return matmul(inputs, kernel) + bias[None, :]


def _forward(inputs: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    return matmul(inputs, kernel) + bias[None, :], (inputs, kernel)


def _backward(kept: tuple[Array, Array], grads: Array) -> tuple[Array, Array, Array]:
    inputs, kernel = kept
    return matmul(grads, kernel.T), kernel_gradient(inputs, grads), bias_gradient(grads)


_affine_on_cpu.defvjp(_forward, _backward)
