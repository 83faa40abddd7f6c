"""The command line: run a command, and map errors to exit codes.

The commands are in `tuner.commands`: they parse, call and print; nothing is decided there. Heavy
imports happen inside the commands that need them, so that `tuner --help` answers at once.
"""

import os
import sys

import typer

from tuner.address import ON_COMMAND_LINE, has_visible_password
from tuner.commands import beginning, machines, profiles, reading, searching
from tuner.commands.shared import say
from tuner.errors import TunerError
from tuner.interrupts import EXIT_INTERRUPTED
from tuner.terminal import outlive_readers

app = typer.Typer(
    help="Measure which num_envs, num_steps, num_minibatches and num_epochs train PPO in JAX best "
    "on this machine.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for part in (beginning, searching, reading, profiles, machines):
    app.registered_commands += part.app.registered_commands

_TYPER_INTERRUPTED = 130
"""What typer returns for a Ctrl-C that nobody below it has handled."""


def main() -> None:
    """Run the command line and exit; every expected error is one line on stderr."""
    outlive_readers()
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    from storage.errors import StorageError

    if has_visible_password(arguments):
        say(ON_COMMAND_LINE)
    try:
        result = app(
            args=_with_flags(arguments) or ["--help"],
            prog_name="tuner",
            standalone_mode=False,
        )
    except typer.Abort:
        return EXIT_INTERRUPTED
    except typer.TyperException as error:
        say(f"tuner: {_with_remedy(error)}")
        return 2
    except TunerError as error:
        say(f"tuner: {error}")
        return error.exit_code
    except StorageError as error:
        say(f"tuner: {error}")
        return _storage_exit_code(error)
    except OSError as error:
        say(
            f"tuner: files must be readable and the disk writable, but got: {error}; free space "
            "or choose another --runs-dir"
        )
        return 8
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if result == _TYPER_INTERRUPTED:
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _with_flags(arguments: list[str]) -> list[str]:
    """Give the named command the flags of its settings; return the arguments as these read them.

    Completing a line in a shell, whose words come by another way, needs the flags of all.
    """
    functions = [command.callback for command in app.registered_commands if command.callback]
    named = [
        function
        for function in functions
        if hasattr(function, "settings")
        and (function.__name__ in arguments or "_TUNER_COMPLETE" in os.environ)
    ]
    if not named:
        return arguments
    from tuner.flags import add_flags, with_values

    for function in named:
        add_flags(function)
    return with_values(arguments)


def _with_remedy(error: typer.TyperException) -> str:
    """Return an error of usage in one line; where it proposes nothing itself, the help to see."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if context is None or "Possible option" in message or "Did you mean" in message:
        return message
    return f"{message.removesuffix('.')}; see `{context.command_path} --help`"


def _storage_exit_code(error: Exception) -> int:
    from storage import errors

    refused = errors.StudyExists | errors.AlreadyLed | errors.NewerSchema | errors.OlderSchema
    if isinstance(error, refused):
        return 4
    return 8 if isinstance(error, errors.StorageUnavailable) else 2
