"""A batch whose narrow leaves are gathered together: one gather for all of them.

Apart from the update because it is a matter of speed alone. A shuffled batch is larger than a
cache: every leaf that is gathered by itself is waited for once a row. So the narrow leaves of a
row are laid side by side first.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped, UInt32

from tuner.ppo.types import Batch

NARROW = 16
"""A leaf of up to so many 4-byte numbers a row is laid beside the others: a cache line holds as
many. More would cost the memory of another copy and gain little."""


class Rows(NamedTuple):
    """A batch of `N` rows, and the words of its narrow leaves side by side."""

    batch: Batch
    words: UInt32[Array, "N words"]


def side_by_side(batch: Batch) -> Rows:
    """Return a batch `[N, …]` with its narrow leaves side by side, which takes a copy of them."""
    words = [
        jax.lax.bitcast_convert_type(leaf.reshape(leaf.shape[0], -1), jnp.uint32)
        for leaf in batch
        if leaf is not None and _is_narrow(leaf)
    ]
    return Rows(batch, jnp.concatenate(words, axis=1))


def narrow_leaves(rows: Rows, indices: Int[Array, " M"]) -> Batch:
    """Return the narrow leaves, `[M, …]`, of some rows; the others are None."""
    words = _gather(rows.words, indices)
    found: dict[str, Any] = dict.fromkeys(Batch._fields)
    first = 0
    for name, leaf in rows.batch._asdict().items():
        if leaf is not None and _is_narrow(leaf):
            last = first + math.prod(leaf.shape[1:])
            numbers = jax.lax.bitcast_convert_type(words[:, first:last], leaf.dtype)
            found[name] = numbers.reshape(-1, *leaf.shape[1:])
            first = last
    return Batch(**found)


def with_wide_leaves(narrow: Batch, rows: Rows, indices: Int[Array, " M"]) -> Batch:
    """Return the rows `[M, …]` whose narrow leaves these are, complete."""
    wide = {
        name: _gather(leaf, indices)
        for name, leaf in rows.batch._asdict().items()
        if leaf is not None and not _is_narrow(leaf)
    }
    return narrow._replace(**wide)


def _is_narrow(leaf: Array) -> bool:
    return leaf.dtype.itemsize == 4 and math.prod(leaf.shape[1:]) <= NARROW


def _gather(leaf: Shaped[Array, "N ..."], indices: Int[Array, " M"]) -> Shaped[Array, "M ..."]:
    # A shuffle's indices are in bounds by construction; saying so spares the clamping.
    return leaf.at[indices].get(mode="promise_in_bounds")
