"""Profiles as YAML files: read with every check, written in one step, earlier versions kept.

Imports only yaml and the standard library, because a training script that wants four numbers
(`from tuner import load_profile`) should not load a database.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from storage import plain_yaml
from storage.atomic import atomic_write_text, sync_folder
from storage.errors import InvalidProfile, StorageUnavailable
from storage.profile import Profile, from_mapping

__all__ = ["Profile", "load_profile", "read", "write"]


def read(path: Path | str) -> Profile:
    """Read a profile.

    Args:
        path: A YAML file as `write` makes it, or edited by hand.

    Returns:
        The profile; keys that the file lacks have their defaults, most of them `None`.

    Raises:
        InvalidProfile: If the file is missing, larger than 1 MB, no YAML, of a newer schema, or
            holds an unknown key or an impossible value; if it is a pipe, a device or a folder. One
            line with the file and the remedy. Nothing that the file says is run or imported.
    """
    try:
        content = plain_yaml.read_bytes(Path(path))
    except plain_yaml.NotPlainYaml as error:
        raise InvalidProfile(f"{path} {error}") from error
    except OSError as error:
        raise InvalidProfile(
            f"{path} must be a profile file, but got: {error.strerror}; see `tuner export`"
        ) from error
    return _parse(content, str(path))


load_profile = read
"""The name under which scripts know `read`: `from tuner import load_profile`."""


def write(directory: Path, profile: Profile) -> Path:
    """Write `directory/NAME.yaml`, keeping the version that it replaces under `history/`.

    The earlier version is named by the time when it was written (UTC, microseconds); no file in
    `history/` is ever overwritten. Writing the same profile again changes nothing.

    Args:
        directory: The folder of a study's profiles; made if it is missing.
        profile: What to write.

    Returns:
        The file's path.

    Raises:
        InvalidProfile: If `read` would refuse what would be written.
        StorageUnavailable: If the folder cannot be written; the file is then as it was.
    """
    text = _render(profile)
    path = directory / f"{profile.profile}.yaml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.read_bytes() == text.encode():
                return path
            _keep(path)
        atomic_write_text(path, text)
    except OSError as error:
        raise StorageUnavailable(
            f"{path} must be writable, but got: {error.strerror}; free space or change its mode"
        ) from error
    return path


def _render(profile: Profile) -> str:
    values = profile.as_dict()
    try:
        text = yaml.dump(
            values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
        )
    except yaml.YAMLError as error:
        raise InvalidProfile(
            f"the profile must hold plain YAML values only, but got: {_one_line(error)}"
        ) from error
    _parse(text.encode(), "the profile")
    return text


def _keep(path: Path) -> None:
    """Copy a file into `history/`, under a name that nothing there has."""
    history = path.parent / "history"
    history.mkdir(exist_ok=True)
    content = path.read_bytes()
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    name, count = f"{path.stem}-{written}", 1
    while (history / f"{name}.yaml").exists():
        count += 1
        name = f"{path.stem}-{written}-{count}"
    with (history / f"{name}.yaml").open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(history)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, writing a value that occurs twice out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        """Use no anchors, which people find hard to read and `plain_yaml` refuses."""
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds these line ends into spaces, except between double quotes, where it escapes them.
    style = '"' if any(end in text for end in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _parse(content: bytes, source: str) -> Profile:
    try:
        return from_mapping(plain_yaml.parse(content), source=source)
    except plain_yaml.NotPlainYaml as error:
        raise InvalidProfile(f"{source} {error}") from error


def _one_line(words: object) -> str:
    return " ".join(str(words).split())
