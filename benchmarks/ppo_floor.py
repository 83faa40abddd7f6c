"""The least time an update of PPO can take: its matrix products and its copies, each alone.

Apart from the breakdown because the floor is computed from shapes and measured without PPO.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import jax
import jax.numpy as jnp
from ppo_statistics import best_seconds

from tuner.child.memory import limit_bytes
from tuner.child.peaks import Unmeasurable, copy, last_level_cache_bytes
from tuner.ppo.affine import kernel_gradient, matmul
from tuner.ppo.types import Batch, PPOConfig

CHAINED = 64
"""Products in one timed program, so that starting it costs nothing beside them."""
CHANGE = 1e-3
UNKNOWN_FREE_BYTES = 2**32

Kind = Literal["forward", "kernel_gradient", "input_gradient"]


@dataclass(frozen=True, slots=True)
class Product:
    """A layer's product on `rows` rows: `x·W`, or `xᵀ·g`, or `g·Wᵀ` of the backward pass."""

    kind: Kind
    rows: int
    inputs: int
    outputs: int

    @property
    def flops(self) -> int:
        """Multiplications and additions, the same for all three."""
        return 2 * self.rows * self.inputs * self.outputs


def products_of(
    config: PPOConfig, *, microbatch: int, obs_size: int, num_outputs: int
) -> dict[Product, int]:
    """Return every product of one update, with how often it is computed.

    Args:
        config: The four numbers and the hidden widths.
        microbatch: Rows whose gradient is computed at once.
        obs_size: Numbers in one observation.
        num_outputs: Outputs of the policy; the value function has one.
    """
    learned = config.num_epochs * config.batch_size // microbatch
    # The policy acts step by step; values are computed after the steps, in chunks.
    acted = Counter({(config.num_envs, num_outputs): config.num_steps})
    acted[microbatch, 1] += config.batch_size // microbatch
    found: Counter[Product] = Counter()
    for last in (num_outputs, 1):
        network = pairwise((obs_size, *config.network, last))
        for layer, (inputs, outputs) in enumerate(network):
            for (rows, head), times in acted.items():
                if head == last:
                    found[Product("forward", rows, inputs, outputs)] += times
            found[Product("forward", microbatch, inputs, outputs)] += learned
            found[Product("kernel_gradient", microbatch, inputs, outputs)] += learned
            if layer:  # nobody asks for the gradient of an observation
                found[Product("input_gradient", microbatch, inputs, outputs)] += learned
    return dict(found)


def copied_bytes(batch: Batch, num_epochs: int) -> int:
    """Return the bytes that an update must move: a batch written once, then gathered every epoch.

    A gather reads and writes every row.
    """
    size = sum(int(leaf.nbytes) for leaf in jax.tree.leaves(batch))
    return size * (1 + 2 * num_epochs)


def seconds_of(product: Product, clock: Callable[[], float], *, budget_s: float) -> float:
    """Return the seconds of one bare product."""
    *shapes, multiply = _operands(product)
    return best_seconds(in_a_loop(multiply, *shapes), clock, budget_s=budget_s) / CHAINED


def in_a_loop(
    function: Callable[..., jax.Array], *shapes: tuple[int, ...]
) -> Callable[[], jax.Array]:
    """Return what calls a function `CHAINED` times within one compiled program, compiled already.

    Its operands, of these shapes, are drawn from a normal distribution.
    """
    keys = jax.random.split(jax.random.key(0), len(shapes))
    operands = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]

    def loop(first: jax.Array, *others: jax.Array) -> jax.Array:
        def again(_: jax.Array, held: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            # One number changes in place, or the compiler would compute once, before the loop.
            first, last = held
            first = first.at[0, 0].set(last.ravel()[0] * CHANGE)
            return first, function(first, *others)

        start = (first, jnp.zeros_like(function(first, *others)))
        result: jax.Array = jax.lax.fori_loop(0, CHAINED, again, start)[1]
        return result

    compiled = jax.jit(loop).lower(*operands).compile()
    jax.block_until_ready(compiled(*operands))
    return lambda: jax.block_until_ready(compiled(*operands))


def _operands(
    product: Product,
) -> tuple[tuple[int, int], tuple[int, int], Callable[[jax.Array, jax.Array], jax.Array]]:
    """Return the shapes of both operands and how they are multiplied."""
    rows, kernel = product.rows, (product.inputs, product.outputs)
    if product.kind == "forward":
        return (rows, product.inputs), kernel, matmul
    if product.kind == "kernel_gradient":
        return (rows, product.inputs), (rows, product.outputs), kernel_gradient
    return (rows, product.outputs), kernel, lambda grads, kernel: matmul(grads, kernel.T)


def measure_floor(
    products: dict[Product, int],
    *,
    copied: int,
    clock: Callable[[], float],
    budget_s: float,
) -> dict[str, Any]:
    """Measure every product and the copy rate, and return what an update takes of both.

    Returns:
        `matmul_s`, `matmul_flops`, `matmul_flops_per_s` (all products together),
        `copy_bytes_per_s` and `copy_s` (None with `copy_reason` where memory cannot be measured),
        `floor_s` (their sum, as far as known), and the single `products`.
    """
    rows = list(_timed(products, clock, budget_s))
    matmul_s = sum(row["total_s"] for row in rows)
    flops = sum(product.flops * number for product, number in products.items())
    rate, reason = copy_rate()
    copy_s = None if rate is None else copied / rate
    return {
        "matmul_flops": flops,
        "matmul_s": matmul_s,
        "matmul_flops_per_s": flops / matmul_s,
        "copied_bytes": copied,
        "copy_bytes_per_s": rate,
        "copy_s": copy_s,
        "copy_reason": reason,
        "floor_s": matmul_s + (copy_s or 0.0),
        "products": rows,
    }


def copy_rate() -> tuple[float | None, str | None]:
    """Return the bytes per second that memory reads and writes; or None and the reason."""
    device = jax.devices()[0]
    cache = last_level_cache_bytes() if device.platform == "cpu" else None
    try:
        return copy(cache, limit_bytes(device, None, 0) or UNKNOWN_FREE_BYTES)[0], None
    except Unmeasurable as error:
        return None, str(error)


def _timed(
    products: dict[Product, int], clock: Callable[[], float], budget_s: float
) -> Iterator[dict[str, Any]]:
    for product, number in products.items():
        seconds = seconds_of(product, clock, budget_s=budget_s)
        yield {
            "kind": product.kind,
            "shape": [product.rows, product.inputs, product.outputs],
            "times": number,
            "flops_per_s": product.flops / seconds,
            "total_s": seconds * number,
        }
