"""A trainer of the user's: called as the contract says, and held to what it promises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.base import Environment
from envs.errors import UnusableFactory
from envs.registry import make
from tests.tuner.trials import TINY
from tuner.child.trainer import learned, make_trainer

Write = Callable[[str], str]

COUNTS = """
import jax.numpy as jnp

def make_trainer(hardware, env, env_params, seed):
    size = hardware.num_envs * hardware.num_steps * hardware.num_minibatches * hardware.num_epochs
    def init(key):
        return {"params": jnp.full((2,), seed), "size": jnp.int32(size), "obs": env.obs_shape[0]}
    def update(carry):
        return carry | {"params": carry["params"] + 1}, {"mean_return": 1, "extra": carry["size"]}
    return init, update
"""


@pytest.fixture
def stress() -> tuple[Environment, Any]:
    return make("stress", {"obs_dim": 8})


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return what writes a user's module and names it; each test has a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str) -> str:
        name = f"trainer_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(code)
        return f"{name}:make_trainer"

    return write


def test_a_trainer_gets_hardware_environment_and_seed(
    write: Write, stress: tuple[Environment, Any]
) -> None:
    init, update = make_trainer(write(COUNTS), TINY, *stress, seed=7)
    carry, metrics = update(init(jax.random.key(0)))
    assert learned(carry).params["['params']"].tolist() == [8, 8]
    # 16 envs · 16 steps · 2 minibatches · 2 epochs
    assert int(metrics["extra"]) == 1024
    assert int(carry["obs"]) == 8


def test_metrics_are_float32_scalars_whatever_the_trainer_returns(
    write: Write, stress: tuple[Environment, Any]
) -> None:
    init, update = make_trainer(write(COUNTS), TINY, *stress, seed=0)
    _, metrics = update(init(jax.random.key(0)))
    assert {name: value.dtype for name, value in metrics.items()} == dict.fromkeys(
        ("mean_return", "extra"), jnp.float32
    )


def test_the_carry_may_be_donated_though_a_trainer_reuses_a_buffer(
    write: Write, stress: tuple[Environment, Any]
) -> None:
    shared = COUNTS.replace('"obs": env.obs_shape[0]', '"obs": key, "again": key')
    init, update = make_trainer(write(shared), TINY, *stress, seed=0)
    carry = jax.jit(init)(jax.random.key(0))
    carry, _ = jax.jit(update, donate_argnums=0)(carry)
    assert carry["params"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("init", r"must return \(init_fn, update_fn\), two functions, but got function; return"),
        ("init, 3", r"must return \(init_fn, update_fn\), two functions, but got tuple"),
        ("init, update, init", r"must return \(init_fn, update_fn\)"),
        ("1 / 0", r"must run without an error, but got ZeroDivisionError.*line 10\); correct"),
    ],
)
def test_a_factory_that_returns_something_else_is_refused(
    write: Write, stress: tuple[Environment, Any], returns: str, message: str
) -> None:
    spec = write(COUNTS.replace("return init, update", f"return {returns}"))
    with pytest.raises(UnusableFactory, match=message):
        make_trainer(spec, TINY, *stress, seed=0)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("carry", r"update_fn of .* must return \(carry, metrics\), but got dict; return both"),
        ("carry, 3", r"must be a dict that holds mean_return, but got int; add the mean return"),
        ("carry, {'loss': 3}", r"a dict that holds mean_return, but got \['loss'\]"),
        (
            "carry, {'mean_return': carry['params']}",
            r"must be scalars, but got shape \(2,\) for mean_return; reduce it inside update_fn",
        ),
        ("carry, {'mean_return': None}", r"must be scalars, but got NoneType for mean_return"),
    ],
)
def test_an_update_that_returns_something_else_is_refused(
    write: Write, stress: tuple[Environment, Any], returns: str, message: str
) -> None:
    last = COUNTS[COUNTS.index("return carry") : COUNTS.index("    return init")]
    code = COUNTS.replace(last, f"return {returns}\n")
    init, update = make_trainer(write(code), TINY, *stress, seed=0)
    with pytest.raises(UnusableFactory, match=message):
        update(init(jax.random.key(0)))


def test_a_carry_without_params_tells_nothing_of_them() -> None:
    assert learned({"weights": jnp.zeros(2)}).params == {}
    nested = {"train_state": {"params": {"a": jnp.zeros(1), "b": jnp.ones(2)}}, "key": jnp.zeros(1)}
    assert sorted(learned(nested).params) == [
        "['train_state']['params']['a']",
        "['train_state']['params']['b']",
    ]
