"""What all commands share: their common options, how they read settings and how they speak."""

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuner.address import hide_in_text
from tuner.interrupts import own_slot
from tuner.terminal import harmless

if TYPE_CHECKING:
    from tuner.config import StudyConfig

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
RunsDir = Annotated[Path, typer.Option(help="Folder of all studies.")]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", help="On other hardware measure a group of its own, with own profiles."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(help="Database URL [default: as started; else TUNER_STORAGE, SQLite in NAME]."),
]

Command = Callable[..., None]


def takes_settings(kind: Literal["study", "training"]) -> Callable[[Command], Command]:
    """Return a decorator for a command whose `**settings` are the fields of a study or training.

    `tuner.flags` gives it its flags, once it is the command that is run: a flag for every field
    needs the settings' types, and these take longer to import than a `--help` should.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        _set_signature(command, [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD])
        command.settings = kind  # type: ignore[attr-defined]
        return command

    return decorate


def add_options(command: Command, options: list[inspect.Parameter]) -> None:
    """Give a command more options than its function names."""
    _set_signature(command, [*inspect.signature(command).parameters.values(), *options])


def _set_signature(command: Command, parameters: list[inspect.Parameter]) -> None:
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}


def say(line: str) -> None:
    """Tell the user of progress; results go to stdout instead.

    Every line of a worker that a leader has started begins with its number.
    """
    slot = own_slot()
    told = line if slot is None else f"[{slot}] {line}"
    whole = f"{harmless(hide_in_text(told))}\n"  # in one write: threads say lines too
    print(whole, end="", file=sys.stderr, flush=True)


def print_json(document: object) -> None:
    """Print a result as one JSON document."""
    print(json.dumps(document, ensure_ascii=False))


def sound_config(file: Path | None, settings: dict[str, object]) -> "StudyConfig":
    """Return the settings of a file with flags on top, with nothing in them that cannot be."""
    from tuner.settings import load_config
    from tuner.workload import require_named_code, require_sound

    loaded = load_config(file, settings)
    if file is not None:
        require_named_code(loaded, settings, file)
    require_sound(loaded)
    return loaded
