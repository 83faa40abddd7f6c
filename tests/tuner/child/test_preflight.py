"""Preflight: what cannot be traced is told with the user's file and line before anything runs."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UnusableFactory
from tests.tuner.trials import TINY, workload
from tuner.child.preflight import preflight
from tuner.protocol import PreflightRequest, Workload

Write = Callable[[str, str], str]

ENV = """
import jax, jax.numpy as jnp
from typing import NamedTuple

class Params(NamedTuple):
    max_steps_in_episode: int = 10

class Space(NamedTuple):
    low: float = -1.0
    high: float = 1.0
    shape: tuple = (2,)

class Actions(NamedTuple):
    n: int = 3

class Walk:
    default_params = Params()
    def observation_space(self, params):
        return Space()
    def action_space(self, params):
        return Actions()
    def reset(self, key, params):
        state = {"x": jnp.float32(0), "t": jnp.int32(0)}
        return jnp.zeros(2), state
    def step(self, key, state, action, params):
        x = state["x"] + 0.1 * (action - 1)
        state = {"x": x, "t": state["t"] + 1}
        return jnp.stack([x, x]), state, -jnp.abs(x), x > 1, state["t"] >= 10, {}
"""
LINE_OF_MOVE = 1 + ENV.splitlines().index('        x = state["x"] + 0.1 * (action - 1)')


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return what writes a user's module and names something in it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(code: str, attribute: str) -> str:
        name = f"mine_{tmp_path.name}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(code)
        return f"{name}:{attribute}"

    return write


def traced(asked: Workload, *configs: dict[str, int]) -> dict[str, Any]:
    told: dict[str, Any] = {}

    def emit(name: str, **data: Any) -> None:
        told.update({"event": name, **data})

    preflight(PreflightRequest(workload=asked, configs=configs or (TINY,), cache_dir=""), emit)
    return told


def test_a_sound_environment_is_traced_for_every_number_of_environments(write: Write) -> None:
    configs = [{**TINY, "num_envs": n, "num_epochs": e} for n in (8, 16, 32) for e in (1, 2)]
    told = traced(workload(env=write(ENV, "Walk")), *configs)
    assert (told["event"], told["traced"]) == ("traced", 3)
    assert told["seconds"] > 0


@pytest.mark.parametrize("env", ["stress", "gymnax:CartPole-v1"])
def test_environments_of_ours_are_traced_for_two_configs_only(env: str) -> None:
    told = traced(workload(env=env), *({**TINY, "num_envs": n} for n in (8, 16, 32, 64)))
    assert told["traced"] == 2


MOVE = '        x = state["x"] + 0.1 * (action - 1)'
FAULTS = {
    "if": ("        x = state['x'] + (0.1 if action > 1 else 0.0)", r"jnp.where|lax.cond"),
    "int()": ("        x = state['x'] + int(action)", r"int\(\)|astype|concrete"),
    "item()": ("        x = state['x'] + action.item()", r"concrete|astype|item"),
    "list index": ("        x = state['x'] + [0.1, 0.2, 0.3][action]", r"jnp.asarray|array"),
    "numpy": ("        import numpy as np; x = np.sin(state['x'])", r"jnp|jax.numpy"),
    "dynamic shape": (
        "        x = jnp.zeros(action).sum()",
        r"a size depends on a traced value; take sizes",
    ),
    "callback": ("        jax.debug.print('{x}', x=action); x = state['x']", r"callback|debug"),
    "ordinary error": ("        x = state['y']", r"KeyError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_traced_is_told_with_file_line_and_cure(write: Write, fault: str) -> None:
    line, cure = FAULTS[fault]
    spec = write(ENV.replace(MOVE, line), "Walk")
    with pytest.raises(UnusableFactory) as caught:
        traced(workload(env=spec))
    message = str(caught.value)
    assert f"{spec.split(':')[0]}.py:{LINE_OF_MOVE}" in message
    assert re.search(cure, message), message
    assert "\n" not in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            'state["t"] + 1}',
            'state["t"] + 1.0}',
            r"the state of .* but got int32\[\] and then float32\[\] at \['t'\]; give both one",
        ),
        ('state["t"] + 1}', 'state["t"] + 1, "new": x}', r"but got nothing and then .*\['new'\]"),
        ("return jnp.zeros(2), state", "return jnp.zeros(3), state", r"shape \[2\] .*got \[3\]"),
        ("jnp.stack([x, x]), state", "x, state", r"obs of step .*shape \[2\] .*but got \[\]"),
        ("-jnp.abs(x), x > 1", "jnp.zeros(1), x > 1", r"reward of .*but got shape \[1\]; index"),
    ],
)
def test_what_breaks_the_protocol_is_told(
    write: Write, before: str, after: str, message: str
) -> None:
    assert before in ENV
    with pytest.raises(UnusableFactory, match=message):
        traced(workload(env=write(ENV.replace(before, after), "Walk")))


TRAINER = """
import jax, jax.numpy as jnp

def make(hardware, env, env_params, seed):
    def init(key):
        return {"params": jnp.zeros(hardware.num_envs)}
    def update(carry):
        params = carry["params"] + 1
        return {"params": params}, {"mean_return": params.mean()}
    return init, update
"""


def test_a_trainer_is_traced_for_every_config(write: Write) -> None:
    asked = replace(workload(), trainer=write(TRAINER, "make"))
    configs = [{**TINY, "num_envs": n, "num_epochs": e} for n in (8, 16, 32) for e in (1, 2)]
    assert traced(asked, *configs)["traced"] == 6


def test_tracing_a_slow_trainer_ends(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.child.preflight.LONGEST_S", 0.0)
    asked = replace(workload(), trainer=write(TRAINER, "make"))
    assert traced(asked, *({**TINY, "num_envs": n} for n in (8, 16, 32)))["traced"] == 2


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('carry["params"] + 1', 'carry["params"][:4] + 1', r"the carry of .*params"),
        ('carry["params"] + 1', 'carry["params"] + float(carry["params"][0])', r"py:8"),
        ('{"mean_return": params.mean()}', '{"loss": params.mean()}', r"holds mean_return"),
        ('"params"', '"weights"', r"must hold what trains under the name params.*rename it"),
        ('carry["params"] + 1', 'carry["params"] + jnp.zeros(16)', r"32x16 mb2 ep2: .*py:8"),
    ],
)
def test_a_trainer_that_cannot_be_traced_is_told(
    write: Write, before: str, after: str, message: str
) -> None:
    assert before in TRAINER
    spec = write(TRAINER.replace(before, after), "make")
    asked = replace(workload(), trainer=spec)
    with pytest.raises(ValueError, match=message):
        traced(asked, TINY, {**TINY, "num_envs": 32})
