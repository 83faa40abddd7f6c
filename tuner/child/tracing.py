"""What a traced program of a user's does wrong, said in one line with their file and line.

Apart from what traces: everything here is a function of an exception, of a jaxpr or of two trees
of shapes. JAX's own messages are right but long, and name the place only in a traceback.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxprs_in_params

from envs.errors import EnvError, UnusableFactory
from envs.factory import OUR_PACKAGES, Frame, innermost, users_frame

LONGEST = 300
WIDE = frozenset({"float64", "int64", "uint64", "complex128"})
_HOST = frozenset({"infeed", "outfeed"})
_SIZE = (
    "a size depends on a traced value",
    "take sizes from Python numbers of the object, not from params or state, or mask with "
    "jnp.where",
)
_KEPT = (
    "a traced value was kept on self or in a global and used in another trace",
    "return it as part of the state",
)
_SAME_TYPE = "give both one shape and dtype, as jnp.float32(0) rather than 0"
_CREATED = re.compile(r"created on line (.+?):(\d+)(?::\d+)? ")
_CONVERTED = re.compile(r"arose with the `(\w+)` function|in the (\w+)\(\) method")
_DIFFERENCE = re.compile(r"^(?:The (?:input|output)|\s+\* the) .*$", re.MULTILINE)

Cause = tuple[str, str]
"""What was wrong, and the usual cure."""


def explain(error: BaseException, ours: tuple[Path, ...] = OUR_PACKAGES) -> str:
    """Return "FILE:LINE: what was wrong; the usual cure" for an error raised while tracing.

    Args:
        error: What tracing, lowering or calling a user's code raised.
        ours: Folders whose frames are not the user's.

    Returns:
        One line of at most 300 characters. The file is relative to the working directory where it
        lies below it; the place is missing where no line is the user's.
    """
    if isinstance(error, EnvError):
        return _shortened(error, LONGEST)  # says itself what it is about
    what, cure = _cause(error)
    frame = _created(error) or users_frame(error, ours)
    return _line(frame, what, cure)


def impurities(jaxpr: ClosedJaxpr | Jaxpr, ours: tuple[Path, ...] = OUR_PACKAGES) -> list[str]:
    """Return what a pure 32-bit program may not hold, each as `explain` says it.

    Args:
        jaxpr: What `jax.make_jaxpr` or `jax.jit(…).trace(…).jaxpr` gives.
        ours: Folders whose frames are not the user's.

    Returns:
        One line for each place that calls back into Python, computes in 64 bits or uses a value of
        an earlier trace, in order of the program; none twice.
    """
    found: dict[str, None] = {}
    for equation, kept in _equations(jaxpr):
        for what, cure in _faults(equation, kept):
            found[_line(_source(equation, ours), what, cure)] = None
    return list(found)


def require_same_tree(before: Any, after: Any, what: str) -> None:
    """Raise unless two trees of shapes agree in structure, shapes, types and weakness of types.

    Args:
        before: Arrays or `jax.ShapeDtypeStruct`s, as `jax.eval_shape` gives them.
        after: The same, one step on.
        what: What they are, for the message: "the state of reset and of step".

    Raises:
        UnusableFactory: Names the path of the first leaf that differs.
    """
    old, new = (dict(_leaves(tree)) for tree in (before, after))
    for path in (*old, *(path for path in new if path not in old)):
        if old.get(path) != new.get(path):
            raise UnusableFactory(
                f"{what} must agree in shapes and types, but got {old.get(path, 'nothing')} and "
                f"then {new.get(path, 'nothing')} at {path or 'its only leaf'}; {_SAME_TYPE}"
            )
    first, then = (str(jax.tree.structure(tree)) for tree in (before, after))
    if first != then:
        raise UnusableFactory(
            f"{what} must be of one structure, but got {_shortened(first)} and then "
            f"{_shortened(then)}; build both in the same way"
        )


@contextmanager
def refusing_64_bits() -> Iterator[None]:
    """Make asking for a 64-bit type an error while tracing; JAX would only warn and truncate."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Explicitly requested dtype", category=UserWarning)
        yield


_BY_TYPE: tuple[tuple[type[BaseException], Cause], ...] = (
    (
        jax.errors.TracerBoolConversionError,
        (
            "a traced value decides a Python if, while, and, or, not, min or max",
            "use jnp.where, jax.lax.cond, jax.lax.while_loop, jnp.logical_and or jnp.minimum",
        ),
    ),
    (
        jax.errors.TracerIntegerConversionError,
        (
            "a traced value indexes a Python list or counts a range",
            "make the list a jnp array, and the loop a jax.lax.fori_loop",
        ),
    ),
    (
        jax.errors.TracerArrayConversionError,
        (
            "a traced value goes into NumPy, by a function of it or as an index of its array",
            "use jax.numpy, and jnp.asarray(array)[index]",
        ),
    ),
    (
        jax.errors.NonConcreteBooleanIndexError,
        ("a mask of traced values selects how many there are", "use jnp.where(mask, x, other)"),
    ),
    (jax.errors.UnexpectedTracerError, _KEPT),
    (jax.errors.ConcretizationTypeError, _SIZE),
)

_BY_TEXT: tuple[tuple[str, Cause], ...] = (
    ("Shapes must be 1D sequences of concrete values", _SIZE),
    ("parameters to jaxpr equations must have __hash__", _SIZE),
    (
        "Slice entries must be static integers",
        (
            "a traced value bounds a slice",
            "use jax.lax.dynamic_slice, or x[i] for one element; the length must be fixed",
        ),
    ),
    (
        "JAX arrays are immutable",
        ("an array is changed in place", "use x = x.at[i].set(y)"),
    ),
    (
        "Explicitly requested dtype",
        ("a 64-bit type is asked for", "use jnp.float32 and jnp.int32"),
    ),
    ("unhashable type: 'Dyn", ("a traced value is a key of a dict or set", "index a jnp array")),
    (
        "passed to DynamicJaxprTracer.__format__",
        ("a traced value is formatted as text", "leave the text out"),
    ),
    ("Leaked trace", _KEPT),
)


def _cause(error: BaseException) -> Cause:
    text = str(error)
    if isinstance(error, jax.errors.ConcretizationTypeError) and (
        conversion := _CONVERTED.search(text)
    ):
        name = conversion[1] or f".{conversion[2]}"
        return (
            f"{name}() needs the number behind a traced value",
            "use .astype(), or keep it traced",
        )
    for kind, cause in _BY_TYPE:
        if isinstance(error, kind):
            return cause
    for start, cause in _BY_TEXT:
        if start in text:
            return cause
    first = next(iter(text.strip().splitlines()), "")
    if re.search(r"must have (equal|the same|identical)", first):
        what = re.split(r",? but they differ", first)[0]
        details = [match.strip().split(", so the")[0] for match in _DIFFERENCE.findall(text)[:1]]
        return ": ".join([what, *details]), _SAME_TYPE
    return f"{type(error).__name__}{first and ': '}{first}", ""


def _created(error: BaseException) -> Frame | None:
    """Return where a kept value was made, which JAX says in the message only."""
    created = _CREATED.search(str(error))
    if not isinstance(error, jax.errors.UnexpectedTracerError) or created is None:
        return None
    return Frame(created[1], int(created[2]))


def _equations(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[tuple[Any, bool]]:
    """Yield every equation, inner programs' included, and whether it reads a kept tracer."""
    kept: set[Any] = set()
    if isinstance(jaxpr, ClosedJaxpr):
        pairs = zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True)
        kept = {variable for variable, value in pairs if isinstance(value, jax.core.Tracer)}
        jaxpr = jaxpr.jaxpr
    for equation in jaxpr.eqns:
        inputs = (v for v in equation.invars if not isinstance(v, Literal))
        yield equation, any(variable in kept for variable in inputs)
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)


def _faults(equation: Any, kept: bool) -> Iterator[Cause]:
    name = equation.primitive.name
    if "callback" in name or name in _HOST or name == "debug_print":
        yield f"{name} calls back into Python at every step", "remove it from the compiled code"
    variables = (*equation.invars, *equation.outvars)
    wide = {str(getattr(v.aval, "dtype", "")) for v in variables} & WIDE
    for dtype in sorted(wide):
        narrow = dtype.replace("64", "32").replace("128", "64")
        yield f"{dtype} is computed with", f"use jnp.{narrow}, and leave jax_enable_x64 off"
    if kept:
        yield _KEPT


def _source(equation: Any, ours: tuple[Path, ...]) -> Frame | None:
    traceback = equation.source_info.traceback
    if traceback is None:
        return None
    return innermost((Frame(f.file_name, f.line_num) for f in traceback.frames), ours)


def _leaves(tree: Any) -> Iterator[tuple[str, str]]:
    for path, leaf in jax.tree.leaves_with_path(tree):
        described = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
        weak = "weak " if getattr(described, "weak_type", False) else ""
        shape = ",".join(str(size) for size in described.shape)
        yield jax.tree_util.keystr(path), f"{weak}{described.dtype}[{shape}]"


def _line(frame: Frame | None, what: str, cure: str) -> str:
    place = "" if frame is None else f"{_relative(frame.file)}:{frame.line}: "
    ending = f"; {cure}" if cure else ""
    room = LONGEST - len(place) - len(ending)
    return f"{place}{_shortened(what, room)}{ending}"


def _shortened(value: Any, room: int = 80) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= room else f"{text[: max(room - 1, 0)]}…"


def _relative(file: str) -> str:
    path = Path(file)
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
