"""The files that a workload reads, known by their content: where they lie may change.

Apart from the workload because a study and a worker ask of the files alone whether they are still
those that everything was measured on.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.config import DATA_FILES, StudyConfig, flag
from tuner.errors import Refused, UsageError


def data_facts(config: StudyConfig) -> dict[str, Any]:
    """Return `{setting: {path, sha256}}` of the files that the workload reads.

    Raises:
        UsageError: one of them cannot be read.
    """
    facts = {}
    for name in DATA_FILES:
        path = getattr(config, name)
        if path is None:
            continue
        facts[name] = {"path": str(path), "sha256": _digest(path, flag(name))}
    return facts


def _digest(path: Path, what: str) -> str:
    """Return the SHA-256 of a regular file: a pipe could be read once only, and may never end."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        got = "no regular file" if path.exists() else "no such file"
    except (OSError, ValueError) as error:
        got = getattr(error, "strerror", None) or str(error)
    raise UsageError(
        f"{what} must be a CSV file that can be read, but got {path}: {got}; give {what} its place"
    )


def refuse_other_data(
    stored: Mapping[str, Any], here: Mapping[str, Any], what: str, remedy: str
) -> None:
    """Require the content of data files to be what `what` (a study, a profile) was measured on.

    Raises:
        Refused: a file has another content.
    """
    for name, file in here.items():
        before = (stored.get(name) or {}).get("sha256")
        if before is None:
            raise Refused(
                f"{what} must keep its bars, and it had no {flag(name)}, but got {file['path']}; "
                "leave it out"
            )
        if before != file["sha256"]:
            raise Refused(
                f"the data of {what} must stay what they were, of SHA-256 {str(before)[:12]}…, but "
                f"got {file['sha256'][:12]}… in {file['path']}; {remedy}"
            )
