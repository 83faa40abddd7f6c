import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tuner.ppo.rows import NARROW, narrow_leaves, side_by_side, with_wide_leaves
from tuner.ppo.types import Batch

SIZE = 60
INDICES = jnp.asarray([59, 0, 7, 7, 31])


def batch_of(obs_shape: tuple[int, ...], **change: jax.Array) -> Batch:
    draws = np.random.default_rng(0)
    obs, log_prob, advantage, target = (
        jnp.asarray(draws.normal(size=(SIZE, *shape)), jnp.float32)
        for shape in (obs_shape, (), (), ())
    )
    # Small whole numbers have the bits of floats that are flushed to zero in arithmetic.
    batch = Batch(obs, jnp.arange(SIZE, dtype=jnp.int32) % 4, log_prob, advantage, target)
    return batch._replace(**change)


def rows_of(batch: Batch) -> Batch:
    rows = side_by_side(batch)
    return with_wide_leaves(narrow_leaves(rows, INDICES), rows, INDICES)


BATCHES = {
    "narrow": batch_of((4,)),
    "wide": batch_of((10, 10, 4)),
    "as wide as may be": batch_of((NARROW,)),
    "too wide": batch_of((NARROW + 1,)),
    "one number": batch_of(()),
    "half as precise": batch_of((4,), obs=jnp.ones((SIZE, 4), jnp.bfloat16)),
    "bytes, a mask": batch_of((6,), obs=jnp.ones((SIZE, 6), bool), mask=jnp.ones((SIZE, 4), bool)),
    "a box, old values": batch_of(
        (2, 3), action=jnp.ones((SIZE, 3), jnp.float32), value=jnp.arange(SIZE) * 0.5
    ),
    "no number": batch_of((4,), target=jnp.full((SIZE,), jnp.nan), value=jnp.full((SIZE,), -0.0)),
}


@pytest.mark.parametrize("case", BATCHES)
def test_rows_are_what_each_leaf_holds_bit_for_bit(case: str) -> None:
    batch = BATCHES[case]
    for leaf, got in zip(batch, jax.jit(rows_of)(batch), strict=True):
        if leaf is None:
            assert got is None
        else:
            assert (got.dtype, got.shape) == (leaf.dtype, (len(INDICES), *leaf.shape[1:]))
            assert np.asarray(got).tobytes() == np.asarray(leaf)[np.asarray(INDICES)].tobytes()


def test_narrow_leaves_leave_out_what_is_wide() -> None:
    narrow = narrow_leaves(side_by_side(BATCHES["wide"]), INDICES)
    assert narrow.obs is None
    assert narrow.advantage.shape == (len(INDICES),)


@pytest.mark.parametrize(
    ("case", "gathers"),
    [("narrow", 1), ("as wide as may be", 1), ("too wide", 2), ("wide", 2), ("bytes, a mask", 3)],
)
def test_narrow_leaves_are_gathered_at_once(case: str, gathers: int) -> None:
    jaxpr = jax.make_jaxpr(rows_of)(BATCHES[case])
    assert str(jaxpr).count(" gather[") == gathers
