"""A settings file to begin with: every setting once, with what it means, its default in effect.

Apart from the settings because it is text for a person: which of them matter for an environment on
a machine, in which order, and what stands beside them.
"""

import shlex
import textwrap
from pathlib import Path
from typing import Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from envs.names import GYMNAX_CONTINUOUS, EnvName, parse
from storage.atomic import atomic_write_text
from tuner.config import Settings, StudyConfig
from tuner.devices.base import DeviceInfo
from tuner.errors import UsageError
from tuner.lookup import as_name
from tuner.settings import load_config
from tuner.space import DIMENSIONS
from tuner.workload import require_sound

WIDTH = 100
COMMENT_COLUMN = 32
"""Where comments begin; beside a longer setting, two spaces after it."""

ALWAYS = ("env", *DIMENSIONS, "baseline", "budget")
OF_KIND: dict[str, tuple[str, ...]] = {
    "stress": ("env_params",),
    "trading": ("data", "market", "tz"),
    "gymnax": (),
    "brax": ("normalize_obs",),
    "factory": ("env_params",),
}
"""What is worth a decision at once, by kind of environment: these are not commented out."""


def write(path: Path, env: str, device: DeviceInfo, *, force: bool = False) -> None:
    """Write the settings file of a study of `env` on `device`.

    Args:
        path: the file; its folder must exist.
        env: as `--env` takes it.
        device: whose space, baseline and network are the defaults.
        force: whether a file that is there is replaced.

    Raises:
        UsageError: there is no such environment, the file exists, or it cannot be written.
    """
    text = settings_file(env, device, path)
    if path.exists() and not (force and path.is_file()):
        remedy = "choose another, or replace it with --force" if path.is_file() else "name a file"
        raise UsageError(f"--output must be a new file, but got {path}, which exists; {remedy}")
    try:
        atomic_write_text(path, text)
    except OSError as error:
        raise UsageError(
            f"--output must be a file that can be written, but got {path}: {error.strerror}; "
            "choose another"
        ) from None


def next_command(path: Path, env: str) -> str:
    """Return the command that starts a study with the file, named after its environment.

    Code of the user's is named once more: a file alone may not run it.
    """
    name = parse(env)
    words = ["tuner", "start", _study_name(name), "-c", str(path)]
    return shlex.join([*words, *(["--env", env] if name.kind == "factory" else [])])


def settings_file(env: str, device: DeviceInfo, path: Path) -> str:
    """Return the text of a settings file: YAML whose values are the defaults for `device`.

    Raises:
        UsageError: there is no such environment.
    """
    config = load_config(None, {"env": env})
    require_sound(config)
    values = config.resolved(device.kind).as_data()
    kind = parse(env).kind
    chosen = {*ALWAYS, *OF_KIND[kind], *(["normalize_obs"] if _is_continuous(env) else [])}
    lines = [*_opening(device, path, env), ""]
    for part in StudyConfig.__bases__:
        assert issubclass(part, Settings)
        lines += [_comment(" ".join((part.__doc__ or "").split()))]
        for name, field in part.model_fields.items():
            line = _setting(name, values[name])
            lines += _with_comment(line if name in chosen else f"#{line}", field)
        lines += [""]
    return "\n".join(lines)


def _opening(device: DeviceInfo, path: Path, env: str) -> list[str]:
    machine = "this CPU" if device.kind == "cpu" else "this GPU"
    return [
        _comment(f"Settings of a study of {env}, with the defaults for {machine}: {device.name}."),
        "#",
        f"#   {next_command(path, env)}",
        f"#   tuner plan -c {shlex.quote(str(path))}   (what would be tried; measures nothing)",
        "#",
        _comment(
            "A flag wins over this file: num_envs is --num-envs. A line that begins with #name: "
            "holds a default; take the # away to change it. Where a value is null, what it stands "
            "for is told in [brackets]."
        ),
    ]


def _setting(name: str, value: object) -> str:
    flow = None if isinstance(value, list | dict) else False
    return yaml.safe_dump(
        {name: value}, default_flow_style=flow, allow_unicode=True, width=10_000
    ).strip()


def _with_comment(line: str, field: FieldInfo) -> list[str]:
    """Return a setting with its meaning beside it, or above it where that would be too wide."""
    meaning = _meaning(field)
    beside = f"{line:<{COMMENT_COLUMN - 2}}  # {meaning}"
    return [beside] if len(beside) <= WIDTH else [_comment(meaning), line]


def _meaning(field: FieldInfo) -> str:
    choices = [get_args(field.annotation)] if get_origin(field.annotation) is Literal else []
    described = " ".join((field.description or "").split())
    return f"{described} ({', '.join(map(str, choices[0]))})" if choices else described


def _comment(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _is_continuous(env: str) -> bool:
    return parse(env).name in GYMNAX_CONTINUOUS


def _study_name(name: EnvName) -> str:
    plain = name.name.partition(":")[0].rpartition(".")[2] if name.kind == "factory" else name.name
    return as_name(plain).lower()
