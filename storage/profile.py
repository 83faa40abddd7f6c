"""The profile: a hardware config with where, on what and how well it was measured.

Apart from its files because these checks hold wherever a profile comes from, and need no YAML.
"""

import difflib
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, get_type_hints

from storage.errors import InvalidProfile

SCHEMA_VERSION = 1
MODE = "jax_hardware_maximized"
HARDWARE_NUMBERS = ("num_envs", "num_steps", "num_minibatches", "num_epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a profile says; the fields are the keys of its file, in their order.

    `None` where something was not measured. GB are 10⁹ bytes, utilisation is in percent, rates are
    env-steps per second. `learning_rate` is the effective one, never scaled again. The mappings
    hold plain YAML values (text, numbers, booleans, lists, mappings).
    """

    schema_version: int = SCHEMA_VERSION
    profile: str
    mode: str = MODE
    phase: int | None = None
    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int
    device: str | None = None
    expected_sps: float | None = None
    expected_sps_ci95: tuple[float, float] | None = None
    expected_gpu_util: float | None = None
    expected_device_util: float | None = None
    util_source: str | None = None
    expected_memory_gb: float | None = None
    memory_limit_gb: float | None = None
    mem_fraction: float | None = None
    num_devices: int = 1
    quality_score: float | None = None
    mean_return: float | None = None
    entropy: float | None = None
    final_score: float | None = None
    learning_rate: float | None = None
    lr_scaling: str | None = None
    constraint_met: bool | None = None
    reason: str | None = None
    coincides_with: tuple[str, ...] = ()
    notes: str | None = None
    hardware: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    workload: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name with plain YAML values; `phase` only where there is one."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        if self.phase is None:
            del values["phase"]
        return values


def from_mapping(data: Any, *, source: str) -> Profile:
    """Check the content of a profile and build it.

    Args:
        data: Keys and values, as `Profile.as_dict` gives them.
        source: What messages call it, usually the file's path.

    Returns:
        The profile; keys that are missing or null have their defaults, most of them `None`.

    Raises:
        InvalidProfile: If the schema is newer, a key unknown, a required one missing or a value
            impossible. One line with the source and the remedy.
    """
    if not isinstance(data, Mapping):
        raise InvalidProfile(f"{source} must hold keys and values, but got {reprlib.repr(data)}")
    _require_known_version(data.get("schema_version"), source)
    for key in data:
        if key not in _RULES:
            nearest = difflib.get_close_matches(str(key), _RULES, n=1)
            remedy = f"did you mean {nearest[0]}?" if nearest else "remove it"
            raise InvalidProfile(
                f"{source} must have known keys only, but got {reprlib.repr(key)}; {remedy}"
            )
    for key in ("schema_version", "profile", *HARDWARE_NUMBERS):
        if data.get(key) is None:
            raise InvalidProfile(f"{source} must have {key}, but it is missing; add it")
    values = {}
    for key, value in data.items():
        if value is None:
            continue
        try:
            values[key] = _RULES[key](value)
        except _Unfit as error:
            raise InvalidProfile(
                f"{source}: {key} must be {error}, but got {reprlib.repr(value)}; correct it"
            ) from error
    return Profile(**values)


def _require_known_version(version: Any, source: str) -> None:
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidProfile(
            f"{source} must have schema_version {SCHEMA_VERSION} or older, but got {version}; "
            "install the tuner that wrote it, or a newer one"
        )


class _Unfit(Exception):
    """A value breaks the rule of its key; the text says what is required."""


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        raise _Unfit("a positive integer")
    return value


def _number(value: Any) -> float:
    """Return a finite float; text counts, since YAML 1.1 reads `3e-4` (no point) as text."""
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise _Unfit("a finite number")


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Unfit("true or false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit("text")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", value):
        raise _Unfit("a name of letters, digits, _ and -")
    return value


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _Unfit("a list of profile names")
    return tuple(_name(item) for item in value)


def _mode(value: Any) -> str:
    if value != MODE:
        raise _Unfit(MODE)
    return MODE


def _interval(value: Any) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _Unfit("a list of two numbers")
    return _number(value[0]), _number(value[1])


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _Unfit("keys and values")
    return value


_RULES_BY_TYPE: dict[Any, Callable[[Any], Any]] = {
    int: _count,
    int | None: _count,
    str: _text,
    str | None: _text,
    float | None: _number,
    bool | None: _truth,
    tuple[float, float] | None: _interval,
    tuple[str, ...]: _names,
    Mapping[str, Any]: _mapping,
}
_RULES = {name: _RULES_BY_TYPE[hint] for name, hint in get_type_hints(Profile).items()} | {
    "profile": _name,
    "mode": _mode,
}
