"""Flags made from settings: one for every field, so that a setting is declared once.

Apart from the commands because several of them take the same settings, each its own choice.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from pydantic.fields import FieldInfo

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

Command = Callable[..., None]


def settings_as_flags(parts: Sequence[type[Settings]]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command a flag for every field, passed on as **settings.

    All flags take text: `tuner.settings` reads it as it reads the values of a file, so that both
    are checked by the same rules and refused in the same words.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        parameters += [_parameter(name, field) for name, field in _fields(parts)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _fields(parts: Sequence[type[Settings]]) -> list[tuple[str, FieldInfo]]:
    return [item for part in parts for item in part.model_fields.items()]


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = list[str] | None if name == "env_params" else str | None
    default = "" if field.default in (None, {}) else f" [default: {_shown(field.default)}]"
    option = typer.Option(
        flag(name), help=f"{field.description}{default}", metavar="VALUE", show_default=False
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _shown(default: object) -> str:
    """Return a default as one would write it after its flag."""
    items = default if isinstance(default, tuple) else (default,)
    return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)
