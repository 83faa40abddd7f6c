"""A user's module on the import path, in every way that it can be wrong."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from envs.base import Environment
from envs.errors import EnvError, InvalidEnvParam, UnknownEnvironment, UnusableFactory
from envs.factory import load_callable, make_from_factory, replaced, scalar_kinds
from tests.envs.jaxprs import impurities

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

GOOD = """\
from typing import NamedTuple
import jax.numpy as jnp


class Params(NamedTuple):
    gain: float = 1.0
    size: int = 3
    table: tuple = (1, 2)


class Space(NamedTuple):
    n: int


class MyEnv:
    default_params = Params()

    def __init__(self, goal=2, name="none", fast=False):
        self.made_with = (goal, name, fast)

    def observation_space(self, params):
        return Space(4)

    def action_space(self, params):
        return Space(params.size)

    def reset(self, key, params):
        return 0, jnp.int32(0)

    def step(self, key, state, action, params):
        return 1, state + 1, params.gain, False, False, {}


def make_env(goal=2, name="none", fast=False):
    return MyEnv(goal, name, fast)


def needs_goal(goal):
    return MyEnv(goal)


number = 3
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write modules into a folder at the end of the import path; forget them afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = set(sys.modules)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in map(str, tmp_path.rglob("*.py")):
            del sys.modules[name]


def refused(spec: str, given: dict[str, Any] | None = None) -> str:
    with pytest.raises(EnvError) as error:
        make_from_factory(spec, given or {})
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_function_a_class_and_a_module_of_a_package_all_make_an_environment(write: Write) -> None:
    write("own_good.py", GOOD)
    write("own_package/__init__.py", "")
    write("own_package/inner.py", GOOD)
    for spec in ("own_good:make_env", "own_good:MyEnv", "own_package.inner:make_env"):
        env, params = make_from_factory(spec, {})
        assert env.inner.made_with == (2, "none", False)
        assert (env.action_space.num_actions, env.obs_shape) == (3, (4,))
        assert params.gain.dtype == jnp.float32
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(params))


def test_parameters_go_to_the_factory_by_name_and_else_to_the_environments_own(
    write: Write,
) -> None:
    write("own_good.py", GOOD)
    given = {"goal": "5", "name": "far", "fast": "true", "gain": "0.5", "size": "7",
             "best_return": "9"}  # fmt: skip
    env, params = make_from_factory("own_good:make_env", given)
    assert env.inner.made_with == (5, "far", True)
    assert (float(params.gain), int(params.size)) == (0.5, 7)
    assert env.action_space.num_actions == 7
    assert env.best_return(params) == 9.0
    assert make_from_factory("own_good:make_env", {"goal": "0.5"})[0].inner.made_with[0] == 0.5
    assert make_from_factory("own_good:needs_goal", {"goal": 1})[0].inner.made_with[0] == 1


def test_parameters_are_checked(write: Write) -> None:
    write("own_good.py", GOOD)
    with pytest.raises(InvalidEnvParam) as error:
        make_from_factory("own_good:make_env", {"gian": 1})
    assert str(error.value) == (
        "env param of own_good:make_env must be one of best_return, fast, gain, goal, name, size, "
        "but got 'gian'; did you mean gain?"
    )
    with pytest.raises(InvalidEnvParam, match="size of own_good:make_env must be a whole number"):
        make_from_factory("own_good:make_env", {"size": 1.5})
    assert refused("own_good:needs_goal") == (
        "own_good:needs_goal must be callable with what is given, but got no goal; "
        "add --env-param goal=VALUE, or give it a default"
    )


@pytest.mark.parametrize("package", ["envs", "storage", "tuner"])
def test_a_module_with_a_name_of_ours_is_refused_with_the_remedy(package: str) -> None:
    with pytest.raises(UnknownEnvironment, match=f"; rename yours, as my_{package}$"):
        make_from_factory(f"{package}.mine:make_env", {})


@pytest.mark.parametrize(
    "spec", ["", "own", "own:", ":make", "own:a.b", "own.py:make", "a b:c"][:5]
)
def test_a_name_of_another_form_is_refused(spec: str) -> None:
    assert refused(spec) == (
        f"--env must have the form package.module:factory, but got {spec!r}; "
        "name a function of a module of yours"
    )


@pytest.mark.parametrize(
    ("spec", "missing"),
    [("own_absent:make", "own_absent"), ("own_absent.envs:make", "own_absent")],
)
def test_a_module_that_is_not_found(spec: str, missing: str) -> None:
    assert refused(spec) == (
        f"--env {spec} must name a module that can be imported, but got no module {missing!r}; "
        "run tuner in the folder that holds own_absent, or install it"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x = 1\ny = 'a' + x\n", "TypeError: can only concatenate str (not \"int\") to str "
         "(own_bad.py, line 2)"),
        ("def f():\n    return 1 / 0\n\nf()\n", "ZeroDivisionError: division by zero "
         "(own_bad.py, line 2)"),
        ("\nimport own_absent_library\n", "ModuleNotFoundError: No module named "
         "'own_absent_library' (own_bad.py, line 2)"),
        ("x = 1\ndef f(:\n", "SyntaxError: invalid syntax (own_bad.py, line 2)"),
        ("import sys\nsys.exit('no')\n", "SystemExit: no (own_bad.py, line 2)"),
        ("import json\njson.loads('{')\n", "JSONDecodeError: Expecting property name enclosed in "
         "double quotes: line 1 column 2 (char 1) (own_bad.py, line 2)"),
        ("import jax.numpy as jnp\njnp.zeros(2) + jnp.zeros(3)\n", "TypeError: add got "
         "incompatible shapes for broadcasting: (2,), (3,). (own_bad.py, line 2)"),
    ],
)  # fmt: skip
def test_a_module_that_fails_is_said_by_the_users_own_line(
    write: Write, text: str, reason: str
) -> None:
    write("own_bad.py", text)
    assert refused("own_bad:make") == (
        f"--env own_bad:make must be in a module that can be imported, but got {reason}; "
        "correct that line"
    )


def test_an_attribute_that_is_missing_or_cannot_be_called(write: Write) -> None:
    path = write("own_good.py", GOOD)
    assert refused("own_good:make_envs") == (
        f"--env own_good:make_envs must name something in {path}, but got no make_envs; "
        "did you mean make_env?"
    )
    assert refused("own_good:zzz").endswith(
        "; it defines MyEnv, Params, Space, make_env, needs_goal"
    )
    assert refused("own_good:number") == (
        "--env own_good:number must be a function or a class, but got int; "
        "it defines MyEnv, Params, Space, make_env, needs_goal"
    )
    write("own_empty.py", "")
    assert refused("own_empty:make").endswith("but got no make; define a function there")


def test_a_factory_that_raises_is_said_by_the_users_own_line(write: Write) -> None:
    write("own_raises.py", "def make():\n    return [][1]\n")
    assert refused("own_raises:make") == (
        "own_raises:make must run without an error, but got IndexError: list index out of range "
        "(own_raises.py, line 2); correct that line"
    )
    space = GOOD.replace("return Space(4)", "return unknown")
    line = space.splitlines().index("        return unknown") + 1
    write("own_space.py", space)
    assert f"but got NameError: name 'unknown' is not defined (own_space.py, line {line});" in (
        refused("own_space:make_env")
    )


def test_a_factory_that_returns_something_else_is_told_what_is_missing(write: Write) -> None:
    write("own_other.py", "def nothing():\n    pass\n\nclass Half:\n    default_params = ()\n")
    assert refused("own_other:nothing") == (
        "own_other:nothing must return an environment with default_params, but got NoneType "
        "without it; define it as an attribute or a property"
    )
    assert refused("own_other:Half") == (
        "own_other:Half must have reset, step, observation_space, action_space and "
        "default_params, but got Half without reset, step, observation_space, action_space; "
        "define it"
    )
    text = GOOD.replace("default_params = Params()", "default_params = {'who': 'me'}")
    write("own_text.py", text.replace("params.size", "3"))
    assert refused("own_text:MyEnv") == (
        "default_params of own_text:MyEnv must hold numbers and arrays only, but got str at "
        "['who']; keep it on the object instead"
    )


def test_trainers_are_loaded_in_the_same_words(write: Write) -> None:
    write("own_good.py", GOOD)
    assert load_callable("own_good:make_env", "--trainer")().made_with[0] == 2
    with pytest.raises(UnusableFactory, match=r"^--trainer own_good:make must name something in"):
        load_callable("own_good:make", "--trainer")


def test_single_numbers_are_replaced_in_every_kind_of_parameters() -> None:
    import gymnax

    of_gymnax = gymnax.make("CartPole-v1")[1]
    assert scalar_kinds(of_gymnax)["gravity"] is float
    assert replaced(of_gymnax, {"gravity": 1.5}).gravity == 1.5
    mapping = {"rate": jnp.float32(1), "size": 2, "on": True, "table": jnp.zeros(3), "name": "x"}
    assert scalar_kinds(mapping) == {"rate": float, "size": int, "on": bool}
    new = replaced(mapping, {"rate": 2.5, "size": 4})
    assert (float(new["rate"]), new["rate"].dtype, new["size"]) == (2.5, jnp.float32, 4)
    assert float(mapping["rate"]) == 1
    assert scalar_kinds(()) == {}
    assert replaced((), {}) == ()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the examples importable, as standing in their folder does."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    yield
    for name in ("my_env", "my_trainer"):
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("example")
def test_the_example_environment_is_pure_and_ends_as_it_says() -> None:
    env, params = make_from_factory("my_env:make_env", {"width": "2", "max_steps_in_episode": 3})
    key = jax.random.key(0)
    obs, state = jax.eval_shape(env.reset, key, params)
    timestep = jax.eval_shape(env.step, key, state, jnp.int32(0), params)
    assert (timestep.obs, timestep.state) == (obs, state)
    assert impurities(env.step, key, state, jnp.int32(0), params) == []
    assert env.eval_steps == 3
    assert env.best_return(params) == 1.0

    def end(position: float, bush: float, time: int) -> tuple[float, bool, bool]:
        begun = env.reset(key, params)[1]._replace(
            position=jnp.float32(position), bush=jnp.float32(bush), time=jnp.int32(time)
        )
        after = env.step(key, begun, jnp.int32(2), params)
        return round(float(after.reward), 4), bool(after.terminated), bool(after.truncated)

    assert end(0.0, 0.15, 0) == (0.99, True, False)  # at 0.1, 0.05 from the bush: reached
    assert end(0.0, 1.0, 0) == (-0.01, False, False)
    assert end(0.0, 1.0, 2) == (-0.01, False, True)
    assert end(1.95, 0.0, 0) == (-0.01, True, False)  # at 2.05, off the line


class Hardware:
    num_envs, num_steps, num_minibatches, num_epochs = 32, 32, 4, 4


def trained(env: Environment, params: Any, num_updates: int) -> tuple[Any, Any, list[float]]:
    """Return the first and the last carry of the example trainer, and the mean returns between."""
    init_fn, update_fn = load_callable("my_trainer:make_trainer", "--trainer")(
        Hardware, env, params, 0
    )
    start = carry = jax.jit(init_fn)(jax.random.key(0))
    update, returns = jax.jit(update_fn), []
    for _ in range(num_updates):
        carry, metrics = update(carry)
        returns.append(float(metrics["mean_return"]))
        assert set(metrics) == {"mean_return", "entropy", "policy_loss", "value_loss", "approx_kl",
                                "explained_variance"}  # fmt: skip
    assert update._cache_size() == 1
    return start, carry, returns


@pytest.mark.long
@pytest.mark.usefixtures("example")
def test_the_example_trainer_learns_the_example_environment() -> None:
    env, params = make_from_factory("my_env:make_env", {})
    start, end, returns = trained(env, params, 30)
    # Random walkers pay for most of 50 steps; a straight walk of about 7 leaves 0.9.
    assert returns[0] < 0.5
    assert sum(returns[-5:]) / 5 > 0.8
    same = jax.tree.map(jnp.array_equal, start.params, end.params)
    assert not any(jax.tree.leaves(same))


@pytest.mark.usefixtures("example")
def test_the_example_trainer_uses_all_four_numbers() -> None:
    env, params = make_from_factory("my_env:make_env", {})
    make = load_callable("my_trainer:make_trainer", "--trainer")

    def program(**changed: int) -> str:
        init_fn, update_fn = make(type("Changed", (Hardware,), changed), env, params, 0)
        carry = jax.eval_shape(init_fn, jax.random.key(0))
        jaxpr, (after, _) = jax.make_jaxpr(update_fn, return_shape=True)(carry)
        assert after == carry
        return str(jaxpr)

    texts = {program()} | {program(**{name: 8}) for name in vars(Hardware) if name[0] == "n"}
    assert len(texts) == 5
