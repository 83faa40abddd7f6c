"""Flags made from settings: one for every field, so that a setting is declared once.

Apart from the commands because several of them take the same settings, each its own choice.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated

import typer
from pydantic.fields import FieldInfo

from tuner.commands.shared import add_options
from tuner.config import (
    MarketSettings,
    MeasureSettings,
    PlaceSettings,
    Settings,
    SpaceSettings,
    StopSettings,
    WorkloadSettings,
    flag,
)
from tuner.training_settings import TrainingSettings

STUDY = (
    WorkloadSettings,
    MarketSettings,
    SpaceSettings,
    StopSettings,
    MeasureSettings,
    PlaceSettings,
)
"""What `start` and `resume` can be told."""
TRAINING = (TrainingSettings, WorkloadSettings, MarketSettings)
"""What `train` can be told."""
TRANSFER = (StopSettings, MeasureSettings, PlaceSettings)
OF_A_TRANSFER = ("baseline", "baseline_replicates")
"""What `transfer` can be told, and which settings of the space; all others are the profile's."""
TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0")
"""What may follow a switch as its value."""

REPEATABLE = ("env_params", "warm_start")
"""Settings whose flag may be given several times."""

_PARTS: dict[str, tuple[type[Settings], ...]] = {
    "study": STUDY,
    "training": TRAINING,
    "transfer": TRANSFER,
}


def add_flags(command: Callable[..., None]) -> None:
    """Give a command that takes settings a flag for every one of their fields.

    All flags take text: `tuner.settings` reads it as it reads the values of a file, so that both
    are checked by the same rules and refused in the same words.
    """
    kind = command.settings  # type: ignore[attr-defined]
    named = _fields(_PARTS[kind])
    if kind == "transfer":
        named = [(name, SpaceSettings.model_fields[name]) for name in OF_A_TRANSFER] + named
    known = inspect.signature(command).parameters  # a process may run a command again
    new = [(name, field) for name, field in named if name not in known]
    add_options(command, [_parameter(name, field) for name, field in new])


def with_values(arguments: list[str]) -> list[str]:
    """Return the arguments with `true` after every switch that stands alone.

    All settings take a value; `--drop-bad-rows` alone means `--drop-bad-rows true`.
    """
    switches = {flag(name) for name, field in _fields(STUDY) if field.annotation is bool}
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        completed.append(argument)
        if argument in switches and following.lower() not in TRUTHS:
            completed.append("true")
    return completed


def _fields(parts: Iterable[type[Settings]]) -> list[tuple[str, FieldInfo]]:
    return [item for part in parts for item in part.model_fields.items()]


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = list[str] | None if name in REPEATABLE else str | None
    is_told = not field.is_required() and field.default not in (None, {})
    default = f" [default: {_shown(field.default)}]" if is_told else ""
    option = typer.Option(
        flag(name), help=f"{field.description}{default}", metavar="VALUE", show_default=False
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _shown(default: object) -> str:
    """Return a default as one would write it after its flag."""
    items = default if isinstance(default, tuple) else (default,)
    return ",".join(_text(item) for item in items)


def _text(item: object) -> str:
    if isinstance(item, bool):
        return str(item).lower()
    return f"{item:g}" if isinstance(item, float) else str(item)
