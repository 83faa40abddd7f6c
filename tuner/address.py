"""Where a command finds its database, and the password that is kept nowhere.

The command line of a process can be read by everyone on its machine (`ps`), its environment by its
owner only. So an address with a password may come from `TUNER_STORAGE`, and one without leaves it
to PostgreSQL's own `PGPASSWORD` and `~/.pgpass`. What is written down of an address has *** in the
password's place, and is completed here.
"""

import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from tuner.errors import UsageError

VARIABLE = "TUNER_STORAGE"
SECRET_VARIABLES = (VARIABLE, "PGPASSWORD")

ON_COMMAND_LINE = (
    f"the password in --storage can be read in this machine's list of processes; set {VARIABLE} to "
    "the address instead, or PGPASSWORD, or use ~/.pgpass"
)


def complete(named: str | None) -> str | None:
    """Return the address to connect to.

    Args:
        named: by a flag or a file of settings; None leaves it to the environment.

    Returns:
        `named`; where its password is hidden, the same address with the password of
        `TUNER_STORAGE`, or without one where PostgreSQL knows its own. Never the password of one
        address with another.

    Raises:
        UsageError: the password is hidden and nowhere to be found.
        InvalidStorageUrl: an address with a hidden password is malformed.
    """
    in_environment = os.environ.get(VARIABLE) or None
    if named is None:
        return in_environment
    from storage.database import HIDDEN, hide_password, without_password  # SQLAlchemy

    if HIDDEN not in named:
        return named
    if in_environment is not None and hide_password(in_environment) == hide_password(named):
        return in_environment
    if _postgres_knows_a_password():
        return without_password(named)
    raise UsageError(
        f"the password of the storage must be given again, because it is not kept, but got only "
        f"{hide_password(named)}; set {VARIABLE} to this address with it, or PGPASSWORD, or use "
        "~/.pgpass"
    )


def of_study(flag: str | None, in_file: Mapping[str, object], folder: Path) -> str | None:
    """Return the address of an existing study, None for the SQLite file in its folder.

    Args:
        flag: what `--storage` says.
        in_file: what the study's config.yaml says; empty where there is none.
        folder: of the study, on this machine.

    Raises:
        UsageError: config.yaml holds no address, or its password is nowhere to be found.
        InvalidStorageUrl: an address with a hidden password is malformed.
    """
    named = flag or in_file.get("storage")
    if named is None and any((folder / name).exists() for name in ("config.yaml", "study.db")):
        return None
    if named is not None and not isinstance(named, str):
        raise UsageError(
            f"{folder / 'config.yaml'}: storage must be a database's address, but got a "
            f"{type(named).__name__}; give --storage"
        )
    return complete(named)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a trial process needs of the environment: it never opens the database."""
    return {name: value for name, value in environment.items() if name not in SECRET_VARIABLES}


def hide_in_text(text: str) -> str:
    """Return a text with *** in place of passwords in addresses, wherever they come from."""
    text = re.sub(r"(\w://[^\s:/@]*:)[^\s@]+@", r"\1***@", text)
    text = re.sub(r"(postgres[\w+]*://[^\s:/@]*:)[^@]+@", r"\1***@", text)  # spaces in it
    return re.sub(r"(?i)(password=)[^\s&'\"]+", r"\1***", text)


def has_visible_password(arguments: list[str]) -> bool:
    """Return whether `--storage` among the arguments of a command holds a password."""
    values = [after for argument, after in pairwise(arguments) if argument == "--storage"]
    values += [a.partition("=")[2] for a in arguments if a.startswith("--storage=")]
    return any(hide_in_text(value) != value and "***" not in value for value in values)


def _postgres_knows_a_password() -> bool:
    passfile = Path(os.environ.get("PGPASSFILE") or Path.home() / ".pgpass")
    return bool(os.environ.get("PGPASSWORD")) or passfile.is_file()
