"""Reads the settings of a study, from a file with flags on top, and says what is wrong with them.

Apart from `tuner.config`, which says what settings there are.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from envs.names import TRADING
from storage import plain_yaml
from tuner import parse
from tuner.config import StudyConfig, flag
from tuner.errors import UsageError


def load_config(
    source: Path | Mapping[str, object] | None, flags: Mapping[str, object]
) -> StudyConfig:
    """Return the config of a settings file with flags on top; flags win.

    Args:
        source: a YAML file whose keys are the fields of `StudyConfig`, its content, or None.
        flags: settings given on the command line; None means not given.

    Raises:
        UsageError: the file or a value is wrong; the message names the key or the flag.
    """
    data = read_settings(source) if isinstance(source, Path) else dict(source or {})
    given = {name: value for name, value in flags.items() if value not in (None, [], ())}
    in_file = data.get("env_params")
    if "env_params" in given and isinstance(in_file, dict):
        given["env_params"] = {**in_file, **parse.env_params(given["env_params"])}
    try:
        return StudyConfig.model_validate(_with_phase({**data, **given}, given))
    except ValidationError as error:
        raise UsageError(
            explain(error, source if isinstance(source, Path) else None, given)
        ) from None


def _with_phase(data: Mapping[str, object], flags: Mapping[str, object]) -> dict[str, object]:
    """Return settings whose `env` and `phase` agree: either names a trading environment.

    Raises:
        UsageError: both are given and do not agree; a flag wins over a file.
    """
    settings = dict(data)
    if "phase" not in flags and "env" in flags:
        settings.pop("phase", None)
    phase, named = settings.get("phase"), settings.get("env")
    if phase is None:
        return {**settings, "phase": TRADING.index(named) + 1 if named in TRADING else None}
    if str(phase) not in ("1", "2"):
        raise UsageError(
            f"--phase must be 1 or 2, but got {phase!r}; leave it out for other environments"
        )
    env = TRADING[int(str(phase)) - 1]
    named = settings.get("env", env) if "phase" not in flags else flags.get("env", env)
    if named != env:
        raise UsageError(
            f"--phase must be that of the environment, but got {phase} with --env {named}; leave "
            "one of them out"
        )
    return {**settings, "env": env}


def read_settings(path: Path) -> dict[str, object]:
    """Return the keys and values of a settings file, which may come from anyone.

    Raises:
        UsageError: it cannot be read, is no regular file of at most 1 MB, or is no mapping in plain
            YAML, see `storage.plain_yaml`.
    """
    try:
        data = plain_yaml.parse(plain_yaml.read_bytes(path))
    except plain_yaml.NotPlainYaml as error:
        raise UsageError(f"{path} {error}") from None
    except OSError as error:
        raise UsageError(
            f"--config must be a file that can be read, but got {path}: {error.strerror or error}; "
            "`tuner init` writes one"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise UsageError(
            f"{path} must hold keys and values such as `trials: 40`, but got a {kind}; "
            "`tuner init` writes one"
        )
    return data


def explain(error: ValidationError, path: Path | None, given: Mapping[str, object]) -> str:
    """Return one line for the first thing that pydantic found wrong."""
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    place = flag(key) if key in given or path is None else f"{path}: {key}"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, StudyConfig.model_fields, n=1)
        remedy = f"did you mean {near[0]}?" if near else "see `tuner start --help`"
        where = path or "the settings of the study"
        return f"{where}: a key must be the name of a setting, but got {key!r}; {remedy}"
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
    message = message.replace("be a valid integer", "be an integer").replace("be a valid", "be a")
    message = message.partition(", unable")[0]
    got = given[key] if key in given else first["input"]
    # An address may hold a password, whatever is wrong with it.
    shown = f"a {type(got).__name__}" if key == "storage" else repr(got)
    return f"{place} {message}, but got {shown}"
