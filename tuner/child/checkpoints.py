"""Checkpoints of a training's whole carry, kept by orbax, each written in one step.

Apart from the training because what orbax cannot hold is turned around here: typed keys become
their words, arrays without elements (brax has some) are made anew, and the tree becomes one flat
mapping from path to array, such as `params/policy/0/kernel`, which can be read without our types:

    orbax.checkpoint.CheckpointManager(folder).restore(step)
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


class CheckpointFault(Exception):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
    """The checkpoints in a folder, by the number of the update that they were made after."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Open the folder, making it; remove what a killed process left half written.

        Args:
            folder: of the checkpoints and nothing else.
            keep: how many of the newest stay.
        """
        for half in folder.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(half)
        self._manager = ocp.CheckpointManager(
            folder.resolve(),
            item_handlers=ocp.StandardCheckpointHandler(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                # A fault must be known before training goes on, and memory must not be copied.
                enable_async_checkpointing=False,
            ),
        )

    def newest(self) -> int | None:
        """Return the update of the newest checkpoint, None while there is none."""
        newest: int | None = self._manager.latest_step()
        return newest

    def save(self, update: int, carry: Any) -> None:
        """Write a checkpoint to the disk; older ones give way once it is there.

        Raises:
            CheckpointFault: it could not be written.
        """
        try:
            self._manager.save(update, args=ocp.args.StandardSave(_flat(carry)))
        except Exception as error:  # tensorstore tells a full disk as a ValueError
            raise CheckpointFault(" ".join(str(error).split())) from error

    def restore(self, shapes: Any) -> tuple[int, Any, list[int]] | None:
        """Return the newest checkpoint that can be read: its update and carry; None without one.

        Newer ones that cannot be read are removed, and their updates returned third.

        Args:
            shapes: the carry's tree with the shapes and types of its leaves.

        Raises:
            CheckpointFault: there are some, and none can be read as this carry.
        """
        unread: dict[int, str] = {}
        for update in sorted(self._manager.all_steps(), reverse=True):
            try:
                carry = self._read(update, shapes)
            except Exception as error:  # whatever a spoiled file makes orbax raise
                unread[update] = " ".join(str(error).split())[:200]
                continue
            for spoiled in unread:
                self._manager.delete(spoiled)
            return update, carry, list(unread)
        if unread:
            newest = max(unread)
            raise CheckpointFault(f"the newest, of update {newest}: {unread[newest]}")
        return None

    def _read(self, update: int, shapes: Any) -> Any:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
            for path, leaf in jax.eval_shape(_flat, shapes).items()
        }
        _require_same(wanted, self._manager.item_metadata(update))
        return _unflat(self._manager.restore(update, args=ocp.args.StandardRestore(wanted)), shapes)


def _flat(carry: Any) -> dict[str, jax.Array]:
    """Return the leaves by their paths: keys as their words, arrays without elements left out."""
    leaves = jax.tree_util.tree_leaves_with_path(carry)
    return {
        _name(path): jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for path, leaf in leaves
        if leaf.size
    }


def _unflat(arrays: Mapping[str, jax.Array], shapes: Any) -> Any:
    """Return the carry that `_flat` took apart."""
    impls = _key_impls(shapes)

    def leaf(path: Any, like: Any) -> Any:
        if not like.size:
            return jnp.zeros(like.shape, like.dtype)
        array = arrays[_name(path)]
        if not _is_key(like):
            return array
        return jax.random.wrap_key_data(array, impl=impls[_name(path)])

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def _key_impls(shapes: Any) -> dict[str, Any]:
    """Return how the keys in a tree are made, by path: jax tells it of arrays, not of shapes."""
    impls: dict[str, Any] = {}

    def look(tree: Any) -> None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if _is_key(leaf):
                impls[_name(path)] = jax.random.key_impl(leaf)

    jax.eval_shape(look, shapes)
    return impls


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _require_same(wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Require the shapes and types of a checkpoint to be the carry's.

    Raises:
        ValueError: one differs, or is in one of them only.
    """
    held = {path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in stored.items()}
    needed = {path: (tuple(leaf.shape), str(leaf.dtype)) for path, leaf in wanted.items()}
    for path in sorted(held.keys() | needed.keys()):
        if held.get(path) != needed.get(path):
            raise ValueError(
                f"{path} must be {needed.get(path)}, but the checkpoint holds {held.get(path)}"
            )
