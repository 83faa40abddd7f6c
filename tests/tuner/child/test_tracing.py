"""Faults of a user's code, each once, in a real module: the file, the line and the cure."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from envs.adapter import adapt
from envs.errors import UnusableFactory
from envs.factory import OUR_PACKAGES
from tuner.child.tracing import (
    LONGEST,
    explain,
    impurities,
    refusing_64_bits,
    require_same_tree,
)

OURS = (*OUR_PACKAGES, Path(__file__).resolve().parents[2])
HEADER = "import jax\nimport jax.numpy as jnp\nimport numpy as np\nkept = []\n"
X, N, V = jnp.float32(1), jnp.int32(1), jnp.ones(4)

Write = Callable[..., ModuleType]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write and import a module of the user's, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    written = []

    def write(body: str, *, name: str = "faulty", folder: str = "") -> ModuleType:
        path = tmp_path / folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + body)
        if folder:
            monkeypatch.setattr(sys, "path", [*sys.path, str(path.parent)])
        importlib.invalidate_caches()
        written.append(name)
        return importlib.import_module(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def explained(fun: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(Exception) as error:  # noqa: PT011
        jax.jit(fun).lower(*args)
    line = explain(error.value, OURS)
    assert "\n" not in line
    assert len(line) <= LONGEST
    return line


# The fault is on the line with `# here`; the header has four lines before it.
FAULTS = {
    "if": (X, "if x > 0:  # here\n        return x\n    return -x",
           "a traced value decides a Python if", "jnp.where"),
    "and": (X, "return x and 2  # here", "a traced value decides a Python if, while, and", "lax"),
    "max": (V, "return max(x[0], x[1])  # here", "not, min or max", "jnp.minimum"),
    "int": (X, "return int(x)  # here", "int() needs the number behind a traced value", ".astype"),
    "float": (X, "return float(x) + 1  # here", "float() needs the number", ".astype"),
    "item": (X, "return x.item()  # here", ".item() needs the number", "keep it traced"),
    "list": (N, "return [1, 2, 3][x]  # here", "a traced value indexes a Python list", "jnp array"),
    "range": (N, "return [i for i in range(x)]  # here", "counts a range", "fori_loop"),
    "numpy array": (N, "return np.arange(3)[x]  # here", "goes into NumPy", "jnp.asarray"),
    "numpy function": (X, "return np.sin(x)  # here", "goes into NumPy", "use jax.numpy"),
    "mask": (V, "return x[x > 0]  # here", "a mask of traced values selects", "jnp.where(mask"),
    "zeros": (N, "return jnp.zeros(x)  # here", "a size depends on a traced value", "sizes from"),
    "arange": (N, "return jnp.arange(x)  # here", "a size depends on a traced value", "sizes from"),
    "nonzero": (V, "return jnp.nonzero(x)  # here", "a size depends on a traced value", "or mask"),
    "split": (N, "return jax.random.split(jax.random.key(0), x)  # here", "a size depends on",
              "sizes from Python numbers"),
    "reshape": (N, "return jnp.ones(4).reshape(x)  # here", "a size depends on", "sizes from"),
    "slice": (N, "return jnp.ones(4)[x : x + 2]  # here", "bounds a slice", "dynamic_slice"),
    "assignment": (V, "x[0] = 1.0  # here\n    return x", "an array is changed in place", ".at[i]"),
    "key": (X, "return {x: 1}  # here", "a traced value is a key of a dict", "index a jnp array"),
    "text": (X, "return f'{x:.2f}'  # here", "formatted as text", "leave the text out"),
    "scan": (X, "return jax.lax.scan(lambda c, _: (c + x, None), jnp.int32(0), None, 3)  # here",
             "scan body function carry input and carry output must have equal types: The input "
             "carry c has type int32[]", "jnp.float32(0) rather than 0"),
    "cond": (X, "return jax.lax.cond(x > 0, lambda: jnp.ones(2), lambda: x)  # here",
             "cond branches must have equal output types: The output of true_fun has type "
             "float32[2] but the corresponding output of false_fun has type float32[]",
             "give both one shape and dtype"),
    "while": (X, "c = jnp.int32(0)\n"
              "    return jax.lax.while_loop(lambda c: c < 3, lambda c: c + x, c)  # here",
              "while_loop body function carry input and carry output must have equal types",
              "one shape and dtype"),
    "shapes": (V, "return x + jnp.ones(3)  # here",
               "TypeError: add got incompatible shapes for broadcasting: (4,), (3,).", ""),
    "division": (X, "return x * (1 / 0)  # here", "ZeroDivisionError: division by zero", ""),
    "attribute": (X, "return x.gain  # here", "AttributeError", ""),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_with_its_line_and_cure(write: Write, fault: str) -> None:
    argument, body, what, cure = FAULTS[fault]
    text = f"def step(x):\n    {body}\n"
    here = (HEADER + text).splitlines().index(
        next(line for line in text.splitlines() if "# here" in line)
    ) + 1  # fmt: skip
    line = explained(write(text).step, argument)
    assert line.startswith(f"faulty.py:{here}: ")
    assert what in line
    assert cure in line


def test_a_fault_inside_a_loop_under_vmap_has_its_own_line(write: Write) -> None:
    module = write("def step(x):\n    def body(c, _):\n        return (c if c > 0 else -c), None\n"
                   "    return jax.lax.scan(body, x, None, 3)\n")  # fmt: skip
    assert explained(jax.vmap(module.step), V).startswith("faulty.py:7: a traced value decides")


def test_an_asked_for_64_bit_type_is_an_error_and_no_warning(write: Write) -> None:
    module = write("def step(x):\n    y = x + 1\n    return y.astype('float64')\n")
    with refusing_64_bits():
        assert explained(module.step, X) == (
            "faulty.py:7: a 64-bit type is asked for; use jnp.float32 and jnp.int32"
        )


def test_a_kept_value_is_found_where_it_is_made(write: Write) -> None:
    module = write("def reset(x):\n    kept.append(x * 2)\n    return x\n"
                   "def step(x):\n    return x + kept[0]\n")  # fmt: skip
    jax.jit(module.reset).trace(X)
    # JAX notices only when such a program runs, and names the line in its message.
    with pytest.raises(jax.errors.UnexpectedTracerError) as error:
        jax.jit(module.step)(X)
    assert explain(error.value) == (
        "faulty.py:6: a traced value was kept on self or in a global and used in another trace; "
        "return it as part of the state"
    )
    # Its jaxpr tells before it runs, by the line that uses it.
    found = impurities(jax.make_jaxpr(module.step)(X))
    assert found == [explain(error.value).replace("py:6", "py:9")]
    with pytest.raises(Exception, match="Leaked") as leaked, jax.checking_leaks():
        jax.jit(lambda x: module.reset(x)).trace(X)
    assert "was kept on self or in a global" in explain(leaked.value)


def test_an_installed_package_is_the_users_only_where_nothing_else_is(write: Write) -> None:
    library = write("def twice(x):\n    return 2 * int(x)\n", name="library",
                    folder="lib/site-packages")  # fmt: skip
    line = explained(library.twice, X)
    assert line.startswith("lib/site-packages/library.py:6: int() needs")
    module = write("import library\n\ndef step(x):\n    return library.twice(x)\n")
    assert explained(module.step, X).startswith("faulty.py:8: int() needs")


def test_a_file_outside_the_working_directory_is_shown_in_full(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = write("def step(x):\n    return int(x)\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert explained(module.step, X).startswith(f"{tmp_path}/faulty.py:6: ")


def test_our_own_frames_are_not_the_users(write: Write) -> None:
    """The fault is the user's, though the innermost frames are of the adapter and of JAX."""
    module = write(
        "class Space:\n    n = 3\n\n\nclass Env:\n"
        "    def observation_space(self, params): return Space()\n"
        "    def action_space(self, params): return Space()\n"
        "    def reset(self, key, params):\n        return 0, 0\n"
        "    def step(self, key, state, action, params):\n"
        "        if action == 0:\n            return\n"
        "        return 0, 0, [0.0], False, {}\n"
    )
    env = adapt(module.Env(), (), name="faulty:Env")
    arguments = (jax.random.key(0), N, N, ())
    assert explained(env.step, *arguments).startswith("faulty.py:15: a traced value decides")
    module.Env.step = lambda *_: (0, 0, jnp.zeros(1), False, {})
    assert explained(env.step, *arguments) == (
        "reward of faulty:Env must be a single number of shape [], but got shape [1]; "
        "index or sum it"
    )


def test_a_long_message_is_cut(write: Write) -> None:
    module = write("def step(x):\n    raise ValueError('much ' * 200 + '\\nmore')\n")
    line = explained(module.step, X)
    assert line.startswith("faulty.py:6: ValueError: much much")
    assert line.endswith("…")
    assert len(line) == LONGEST


def test_callbacks_are_found_in_every_depth_and_once(write: Write) -> None:
    module = write(
        "def step(x):\n"
        "    jax.debug.print('{}', x)\n"
        "    def body(c, _):\n"
        "        jax.debug.callback(lambda _: None, c)\n"
        "        return c, None\n"
        "    x = jax.lax.scan(body, x, None, 3)[0]\n"
        "    x = jax.lax.scan(body, x, None, 3)[0]\n"
        "    return jax.pure_callback(lambda v: v, x, x)\n"
    )
    lines = impurities(jax.make_jaxpr(module.step)(X))
    assert lines == [
        "faulty.py:6: debug_print calls back into Python at every step; "
        "remove it from the compiled code",
        "faulty.py:8: debug_callback calls back into Python at every step; "
        "remove it from the compiled code",
        "faulty.py:12: pure_callback calls back into Python at every step; "
        "remove it from the compiled code",
    ]


def test_64_bit_values_are_found(write: Write) -> None:
    module = write("def step(x):\n    y = x + 1\n    return y.astype(jnp.float64)\n")
    with jax.enable_x64(True):
        lines = impurities(jax.make_jaxpr(module.step)(X))
    assert lines == [
        "faulty.py:7: float64 is computed with; use jnp.float32, and leave jax_enable_x64 off"
    ]


def test_a_pure_program_has_no_impurities(write: Write) -> None:
    module = write("def step(x):\n    return jax.lax.scan(lambda c, _: (c * 2, c), x, None, 3)\n")
    assert impurities(jax.make_jaxpr(jax.vmap(module.step))(V)) == []


class State(NamedTuple):
    position: Any
    time: Any


def shape(*sizes: int, dtype: Any = jnp.float32, weak: bool = False) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype, weak_type=weak)


@pytest.mark.parametrize(
    ("after", "got"),
    [
        (State(shape(2), shape(dtype=jnp.float32)), "int32[] and then float32[] at .time"),
        (State(shape(3), shape(dtype=jnp.int32)), "float32[2] and then float32[3] at .position"),
        (State(shape(2), shape(dtype=jnp.int32, weak=True)), "int32[] and then weak int32[] at"),
        (State(shape(2), None), "int32[] and then nothing at .time"),
        (State({"x": shape(2)}, shape(dtype=jnp.int32)), "float32[2] and then nothing at "
         ".position"),
    ],
)  # fmt: skip
def test_states_that_differ_are_named_by_path(after: Any, got: str) -> None:
    before = State(shape(2), shape(dtype=jnp.int32))
    with pytest.raises(UnusableFactory) as error:
        require_same_tree(before, after, "the state of reset and of step")
    assert str(error.value).startswith(
        "the state of reset and of step must agree in shapes and types, but got " + got
    )
    assert str(error.value).endswith(
        "; give both one shape and dtype, as jnp.float32(0) rather than 0"
    )


def test_states_that_agree_pass_and_kinds_of_containers_matter() -> None:
    require_same_tree(State(X, N), State(shape(), shape(dtype=jnp.int32)), "the state")
    with pytest.raises(UnusableFactory, match="must be of one structure, but got PyTreeDef"):
        require_same_tree([X], (X,), "the state")
