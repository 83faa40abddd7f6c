"""Reading `env_params`: keys checked against what an environment accepts, values against types.

Apart from the environments because all of them refuse a bad key or value in the same words.
Values come from the command line (text), from YAML or from Python.
"""

import difflib
import math
from collections.abc import Mapping

from envs.errors import InvalidEnvParam

Scalar = bool | int | float
RawValue = str | int | float

BEST_RETURN = "best_return"
"""The key that every environment accepts: the best return, declared by hand."""


def read(
    env: str, given: Mapping[str, RawValue], kinds: Mapping[str, type[Scalar]]
) -> dict[str, Scalar]:
    """Convert the given parameters to the types that the environment declares.

    Args:
        env: Name of the environment, for messages.
        given: Values by key, as text or as numbers.
        kinds: Accepted keys with their types; `best_return` is always accepted, as a float.

    Returns:
        The converted values of exactly the given keys.

    Raises:
        InvalidEnvParam: A key is unknown, or a value cannot be read as its type.
    """
    accepted: dict[str, type[Scalar]] = {**kinds, BEST_RETURN: float}
    values: dict[str, Scalar] = {}
    for key, raw in given.items():
        if key not in accepted:
            raise InvalidEnvParam(_unknown_key(env, key, sorted(accepted)))
        values[key] = _convert(env, key, raw, accepted[key])
    return values


def require(condition: bool, env: str, message: str) -> None:
    """Raise unless a value lies in its range.

    Args:
        condition: Whether the value is acceptable.
        env: Name of the environment.
        message: "KEY must be …, but got …; remedy".

    Raises:
        InvalidEnvParam: `condition` is false.
    """
    if not condition:
        raise InvalidEnvParam(f"env param {message} (environment {env})")


def _unknown_key(env: str, key: str, accepted: list[str]) -> str:
    nearest = difflib.get_close_matches(key, accepted, n=1)
    suggestion = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"env param of {env} must be one of {', '.join(accepted)}, but got {key!r}{suggestion}"


def _convert(env: str, key: str, raw: RawValue, kind: type[Scalar]) -> Scalar:
    converted = _as_kind(raw, kind)
    if converted is None:
        wanted = {bool: "true or false", int: "a whole number", float: "a finite number"}[kind]
        raise InvalidEnvParam(
            f"env param {key} of {env} must be {wanted}, but got {raw!r}; write {key}=VALUE"
        )
    return converted


def _as_kind(raw: RawValue, kind: type[Scalar]) -> Scalar | None:
    """Return `raw` as `kind`, or None where that would lose or invent something."""
    if kind is bool:
        if isinstance(raw, bool):
            return raw
        return {"true": True, "false": False}.get(str(raw).lower())
    if isinstance(raw, bool):
        return None
    try:
        number = float(raw)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if kind is int:
        return int(number) if number.is_integer() else None
    return number
