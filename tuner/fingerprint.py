"""What must be equal for the measurements of two processes to be compared: code and workload.

Apart from the study because every worker holds its own machine to it. The third part, the hardware,
is in `tuner.hardware`: a profile is held to that one too.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tuner.config import DATA_FILES, StudyConfig
from tuner.errors import Refused

PACKAGES = ("tuner", "envs")
"""Those of ours that decide what is measured."""
VERSIONS = ("tuner", "jax", "jaxlib", "optax")


def fingerprint(
    config: StudyConfig, versions: Mapping[str, str | None], data: Mapping[str, Any]
) -> dict[str, str | None]:
    """Return the code and the workload of a study, as they are on this machine.

    Args:
        config: the study's resolved settings.
        versions: as a child told them.
        data: what `data_facts` returned here.
    """
    return {
        **{name: versions.get(name) for name in VERSIONS},
        "source": source_hash(),
        "workload": workload_hash(config, data),
    }


def refuse_other_code(
    stored: Mapping[str, Any] | None, here: Mapping[str, str | None], name: str
) -> None:
    """Require code and workload to be those that a study was started with.

    A study of a version without fingerprints has none, and is taken as it is.

    Raises:
        Refused: the first field that differs is named.
    """
    for field, before in (stored or {}).items():
        if before != here.get(field):
            raise Refused(
                f"the study {name!r} must keep its {_WORDS.get(field, field)}, which is {before}, "
                f"but got {here.get(field)} here; install the same version, or start another study"
            )


def workload_hash(config: StudyConfig, data: Mapping[str, Any]) -> str:
    """Return the hash of what is trained and on which data, wherever these lie."""
    workload = asdict(config.workload())
    for name in DATA_FILES:
        (workload["market"] or {}).pop(name, None)
    content = {name: file.get("sha256") for name, file in data.items()}
    return _short(json.dumps([workload, content], sort_keys=True).encode())


@cache
def source_hash() -> str:
    """Return the hash of the installed source of `PACKAGES`, by path and content."""
    whole = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                whole.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode())
                whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


_WORDS = {
    "source": "source code of tuner and envs (hash)",
    "workload": "workload (hash)",
    **{name: f"version of {name}" for name in VERSIONS},
}
