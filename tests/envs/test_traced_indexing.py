"""The table of traced indexing in `envs/README.md` names every such place, and none besides."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax._src import source_info_util

from envs.stress import make_stress
from tests.envs.jaxprs import equations
from tests.envs.markets import random_market, small_trading

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ("gather", "dynamic_slice", "dynamic_update_slice", "scatter")
ROW = re.compile(r"^\| `(envs/\w+\.py::[\w.]+)` \|[^|]*\| `(\w+)` \|", re.MULTILINE)


def places(fun: Callable[..., Any], *args: Any) -> set[tuple[str, str]]:
    """Return `("envs/FILE.py::FUNCTION", operation)` of everything that indexes an array."""
    found = set()
    for equation in equations(jax.make_jaxpr(fun)(*args).jaxpr):
        name = equation.primitive.name
        if not name.startswith(OPERATIONS):
            continue
        frames = source_info_util.user_frames(equation.source_info.traceback)
        ours = next(frame for frame in frames if (ROOT / "envs") in Path(frame.file_name).parents)
        path = Path(ours.file_name).relative_to(ROOT).as_posix()
        found.add((f"{path}::{ours.function_name}", name))
    return found


def test_the_table_names_every_place() -> None:
    environments = [
        make_stress({"state_bytes": 8, "work": 2}),
        *(small_trading(phase, random_market(0, 100), window=20) for phase in (1, 2)),
    ]
    found = set()
    for env, params in environments:
        key, action = jax.random.key(0), jnp.int32(0)
        _, state = env.reset(key, params)
        found |= places(env.reset, key, params)
        found |= places(env.step, key, state, action, params)
        found |= places(env.stagger, state, jnp.float32(0.5))
        if hasattr(env, "action_mask"):
            found |= places(env.action_mask, state, params)
    table = ROW.findall((ROOT / "envs" / "README.md").read_text(encoding="utf-8"))
    assert len(table) == len(set(table))
    assert set(table) == found


def test_a_place_outside_the_environments_cannot_hide() -> None:
    with pytest.raises(StopIteration):
        places(lambda values, index: values[index], jnp.ones(3), jnp.int32(0))
