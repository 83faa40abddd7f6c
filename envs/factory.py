"""A user's own environment, from `package.module:factory`.

Apart from the adapter because what can go wrong here is not the environment but getting at it: a
module that is not found or fails, a factory that is missing, raises or returns something else. Who
wrote it wants their own line and no traceback.
"""

import difflib
import importlib
import inspect
import math
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from envs import names
from envs import params as env_params
from envs.adapter import AdaptedEnv, adapt, as_arrays
from envs.base import EnvParams
from envs.errors import EnvError, UnusableFactory
from envs.params import RawValue, Scalar

OUR_PACKAGES = tuple(Path(__file__).resolve().parent.parent / name for name in names.OURS)
"""The folders of this project's packages, whose frames are not the user's."""

LONGEST_REASON = 160
_KINDS: dict[str, type[Scalar]] = {"b": bool, "i": int, "u": int, "f": float}
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_LIBRARY = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")})
_JAX = frozenset({"jax", "jaxlib"})


class Frame(NamedTuple):
    """A line of a user's file."""

    file: str
    line: int


def make_from_factory(spec: str, given: Mapping[str, RawValue]) -> tuple[AdaptedEnv, EnvParams]:
    """Build the environment that a user's factory returns.

    Args:
        spec: `package.module:factory`; the working directory must be on the import path.
        given: By key: arguments of the factory, scalar fields of the environment's
            `default_params`, and `best_return`. Text for an argument becomes a number, true or
            false where it reads as one; for a field, what the field is.

    Returns:
        The environment and its traced parameters.

    Raises:
        UnusableFactory: Anything about the module, the factory or what it returns.
        InvalidEnvParam: A key is unknown, or a value has the wrong type.
    """
    factory = load_callable(spec, "--env")
    arguments, required = _arguments(factory)
    taken = {key: _literal(raw) for key, raw in given.items() if key in arguments}
    if needed := [key for key in required if key not in taken]:
        raise UnusableFactory(
            f"{spec} must be callable with what is given, but got no {', '.join(needed)}; "
            f"add --env-param {needed[0]}=VALUE, or give it a default"
        )
    inner = call(factory, spec, **taken)
    defaults = _default_params(inner, spec)
    # Arguments are listed among what is accepted; their values are gone by then.
    kinds = scalar_kinds(defaults) | dict.fromkeys(arguments, float)
    rest = {key: raw for key, raw in given.items() if key not in taken}
    values = env_params.read(spec, rest, kinds)
    best = values.pop(env_params.BEST_RETURN, None)
    params = replaced(defaults, values)
    env = call(adapt, spec, inner, params, name=spec, best=None if best is None else float(best))
    return env, as_arrays(params, f"default_params of {spec}")


def load_callable(spec: str, what: str) -> Callable[..., Any]:
    """Import what `package.module:factory` names.

    Args:
        spec: The name.
        what: The flag that it was given to, for messages.

    Raises:
        UnknownEnvironment: The module has the name of one of our packages.
        UnusableFactory: It cannot be imported, or holds nothing callable of that name.
    """
    if not names.is_factory(spec):
        raise UnusableFactory(
            f"{what} must have the form package.module:factory, but got {spec!r}; "
            "name a function of a module of yours"
        )
    names.require_own_module(spec)
    module_name, _, attribute = spec.partition(":")
    module = _import(module_name, spec, what)
    place = getattr(module, "__file__", None) or module_name
    if not hasattr(module, attribute):
        raise UnusableFactory(
            f"{what} {spec} must name something in {place}, but got no {attribute}"
            f"{_suggestion(attribute, module)}"
        )
    factory = getattr(module, attribute)
    if not callable(factory):
        raise UnusableFactory(
            f"{what} {spec} must be a function or a class, but got {type(factory).__name__}"
            f"{_suggestion(attribute, module)}"
        )
    return factory  # type: ignore[no-any-return]


def call(function: Callable[..., Any], spec: str, *args: Any, **kwargs: Any) -> Any:
    """Call a user's function.

    Raises:
        UnusableFactory: It raised; says what and on which line of theirs.
    """
    try:
        return function(*args, **kwargs)
    except EnvError:
        raise
    except (Exception, SystemExit) as error:
        raise UnusableFactory(
            f"{spec} must run without an error, but got {reason(error)}; correct that line"
        ) from error


def reason(error: BaseException) -> str:
    """Return an error in one line: its type, its first line, and the user's own line."""
    frame = users_frame(error)
    place = "" if frame is None else f" ({Path(frame.file).name}, line {frame.line})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = next(iter(text.strip().splitlines()), "")
    if len(first) > LONGEST_REASON:
        first = first[: LONGEST_REASON - 1] + "…"
    return f"{type(error).__name__}{first and ': '}{first}{place}"


def users_frame(error: BaseException, ours: tuple[Path, ...] = OUR_PACKAGES) -> Frame | None:
    """Return the innermost line of the user's where an error came from, if there is one."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return Frame(error.filename, error.lineno or 1)
    return innermost(reversed(list(_frames(error.__traceback__))), ours)


def innermost(frames: Iterable[Frame], ours: tuple[Path, ...] = OUR_PACKAGES) -> Frame | None:
    """Return the first frame, innermost first, that is the user's.

    Files outside any `site-packages` come first: an installed library that the user called is not
    at fault. Where there is none, the user's own package may be an installed one.
    """
    candidates = [frame for frame in frames if _is_users(frame.file, ours)]
    own = (frame for frame in candidates if not _is_installed(frame.file))
    return next(own, candidates[0] if candidates else None)


def scalar_kinds(params: Any) -> dict[str, type[Scalar]]:
    """Return the type of each field that is a single number; others cannot be set by name."""
    return {
        key: kind for key, value in _fields(params).items() if (kind := _kind(value)) is not None
    }


def replaced(params: Any, values: Mapping[str, Scalar]) -> Any:
    """Return parameters with fields replaced; one that was an array becomes one of its type."""
    old = _fields(params)
    new = {
        key: value if isinstance(old[key], Scalar) else jnp.asarray(value, old[key].dtype)
        for key, value in values.items()
    }
    if not new:
        return params
    if isinstance(params, Mapping):
        return {**params, **new}
    if is_dataclass(params) and not isinstance(params, type):
        return replace(params, **new)
    return params._replace(**new)


def _import(module_name: str, spec: str, what: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if module_name.endswith(".py"):
            raise UnusableFactory(
                f"{what} must name a module and no file, but got {spec}; write "
                f"{spec.replace('.py:', ':')}"
            ) from error
        if missing is not None and f"{module_name}.".startswith(f"{missing}."):
            raise UnusableFactory(
                f"{what} {spec} must name a module that can be imported, but got no module "
                f"{missing!r}; run tuner in the folder that holds {module_name.split('.')[0]}, "
                "or install it"
            ) from error
        raise UnusableFactory(
            f"{what} {spec} must be in a module that can be imported, but got {reason(error)}; "
            "correct that line"
        ) from error


def _suggestion(attribute: str, module: ModuleType) -> str:
    """Return what the user may have meant among the callables that the module defines."""
    own = sorted(
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    )
    nearest = difflib.get_close_matches(attribute, own, n=1)
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; it defines {', '.join(own)}" if own else "; define a function there"


def _arguments(factory: Callable[..., Any]) -> tuple[list[str], list[str]]:
    """Return the arguments that a factory takes by name, and those of them that it needs."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return [], []
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in by_name], [p.name for p in by_name if p.default is p.empty]


def _default_params(inner: Any, spec: str) -> Any:
    if not call(hasattr, spec, inner, "default_params"):
        raise UnusableFactory(
            f"{spec} must return an environment with default_params, but got "
            f"{type(inner).__name__} without it; define it as an attribute or a property"
        )
    return inner.default_params


def _literal(raw: RawValue) -> RawValue:
    """Return text as what it reads as: true or false, a whole number, a number, else itself."""
    if not isinstance(raw, str):
        return raw
    if raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    for kind in (int, float):
        try:
            number = kind(raw)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    return raw


def _fields(params: Any) -> dict[str, Any]:
    if isinstance(params, Mapping):
        return {key: value for key, value in params.items() if isinstance(key, str)}
    if is_dataclass(params):
        return {field.name: getattr(params, field.name) for field in fields(params) if field.init}
    return dict(params._asdict()) if hasattr(params, "_asdict") else {}


def _kind(value: Any) -> type[Scalar] | None:
    if isinstance(value, Scalar):
        return type(value)
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype) or np.shape(value) != ():
        return None
    return _KINDS.get(dtype.kind)


def _frames(traceback: TracebackType | None) -> Iterable[Frame]:
    """Yield the lines of a traceback, outermost first."""
    while traceback is not None:
        yield Frame(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next


def _is_installed(file: str) -> bool:
    return not _INSTALLED.isdisjoint(Path(file).parts)


def _is_users(file: str, ours: tuple[Path, ...]) -> bool:
    """Return whether a file is neither JAX's, ours nor the standard library's."""
    if file.startswith("<"):
        return False
    path = Path(file)
    if any(path.is_relative_to(folder) for folder in ours):
        return False
    if _is_installed(file):
        return not any(
            folder in _INSTALLED and package in _JAX
            for folder, package in zip(path.parts, path.parts[1:], strict=False)
        )
    return not any(path.is_relative_to(folder) for folder in _LIBRARY)
