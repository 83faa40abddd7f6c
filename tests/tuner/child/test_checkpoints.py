"""Checkpoints: everything a carry may hold comes back, whatever is spoiled around it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.storage.disks import largest_file
from tuner.child.checkpoints import CheckpointFault, Checkpoints


class Carry(NamedTuple):
    params: Any
    opt_state: Any
    key: jax.Array
    nothing: None
    empty: jax.Array
    flag: jax.Array


@jax.jit
def carry(seed: int) -> Carry:
    params = {"kernel": jnp.full((200, 200), seed, jnp.float32), "bias": (jnp.arange(3),)}
    return Carry(
        params=params,
        opt_state=optax.adam(1e-3).init(params["kernel"]),
        key=jax.random.split(jax.random.key(seed, impl="rbg"), 4),
        nothing=None,
        empty=jnp.zeros((3, 0), jnp.bfloat16),
        flag=jnp.bool_(True),
    )


leaves_coroutines = pytest.mark.filterwarnings(  # orbax does, when a file is at fault
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)
SHAPES = jax.eval_shape(carry, 0)


def same(left: Carry, right: Carry) -> bool:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    raw = [
        (np.asarray(jax.random.key_data(x)) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in (*jax.tree.leaves(left), *jax.tree.leaves(right))
    ]
    half = len(raw) // 2
    return all(
        a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
        for a, b in zip(raw[:half], raw[half:], strict=True)
    )


def test_the_newest_comes_back_whole_and_the_oldest_give_way(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.restore(SHAPES) is None
    for update in (1, 2, 3):
        checkpoints.save(update, carry(update))
    assert {path.name for path in tmp_path.iterdir()} == {"2", "3"}
    found = Checkpoints(tmp_path, keep=2).restore(SHAPES)
    assert found is not None
    assert (found[0], found[2]) == (3, [])
    assert same(found[1], carry(3))


@leaves_coroutines
def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, carry(1))
    with largest_file(1000), pytest.raises(CheckpointFault):
        checkpoints.save(2, carry(2))
    again = Checkpoints(tmp_path, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {"1"}  # half a checkpoint is removed
    found = again.restore(SHAPES)
    assert found is not None
    assert same(found[1], carry(1))
    again.save(2, carry(2))
    assert again.newest() == 2


@leaves_coroutines
def test_one_that_was_spoiled_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.save(1, carry(1))
    checkpoints.save(2, carry(2))
    for path in (tmp_path / "2" / "default").rglob("d/*"):
        path.write_bytes(b"spoiled")
    found = Checkpoints(tmp_path, keep=3).restore(SHAPES)
    assert found is not None
    assert (found[0], found[2]) == (1, [2])
    assert not (tmp_path / "2").exists()


def test_the_carry_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, carry(1))
    other = SHAPES._replace(flag=jax.ShapeDtypeStruct((2,), jnp.bool_))
    with pytest.raises(CheckpointFault, match=r"flag must be \(\(2,\), 'bool'\)"):
        checkpoints.restore(other)
    assert checkpoints.newest() == 1  # what nobody could read stays
