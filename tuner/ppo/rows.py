"""A batch whose rows are gathered at random with one access to memory, where that can be.

Apart from the update because it is a matter of speed alone. A shuffled batch is larger than a
cache: every leaf that is gathered by itself is waited for once a row. So the narrow leaves of a
row are laid side by side first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped, UInt32

from tuner.ppo.types import Batch

NARROW = 16
"""Up to so many numbers of a row are laid beside the others: the row of a cache holds as many."""


class Rows(NamedTuple):
    """A batch of `N` rows, and the words of its narrow leaves side by side."""

    batch: Batch
    words: UInt32[Array, "N words"]


def side_by_side(batch: Batch) -> Rows:
    """Return the batch with its narrow leaves side by side."""
    words = [
        jax.lax.bitcast_convert_type(leaf.reshape(leaf.shape[0], -1), jnp.uint32)
        for leaf in batch
        if leaf is not None and _is_narrow(leaf)
    ]
    return Rows(batch, jnp.concatenate(words, axis=1))


def narrow_leaves(rows: Rows, indices: Int[Array, " M"]) -> Batch:
    """Return the narrow leaves of some rows; the others are None."""
    words = _gather(rows.words, indices)
    found: dict[str, Any] = dict.fromkeys(Batch._fields)
    first = 0
    for name, leaf in rows.batch._asdict().items():
        if leaf is not None and _is_narrow(leaf):
            last = first + leaf[0].size
            numbers = jax.lax.bitcast_convert_type(words[:, first:last], leaf.dtype)
            found[name] = numbers.reshape(-1, *leaf.shape[1:])
            first = last
    return Batch(**found)


def with_wide_leaves(narrow: Batch, rows: Rows, indices: Int[Array, " M"]) -> Batch:
    """Return the rows whose narrow leaves these are, complete."""
    wide = {
        name: _gather(leaf, indices)
        for name, leaf in rows.batch._asdict().items()
        if leaf is not None and not _is_narrow(leaf)
    }
    return narrow._replace(**wide)


def _is_narrow(leaf: Array) -> bool:
    return leaf.dtype.itemsize == 4 and leaf[0].size <= NARROW


def _gather(leaf: Shaped[Array, "N ..."], indices: Int[Array, " M"]) -> Shaped[Array, "M ..."]:
    # A shuffle's indices are in bounds by construction; saying so spares the clamping.
    return leaf.at[indices].get(mode="promise_in_bounds")
