"""Where programs for a GPU that is not here are compiled.

The CUDA compiler lives in an environment of its own (`make targets`): in the main one its plugin
would look for a driver in every child of a machine without a GPU, and complain.
"""

import importlib.metadata
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UsageError

VARIABLE = "TUNER_TARGETS_PYTHON"
"""Names another interpreter that has this package and the CUDA compiler."""
PLUGINS = ("jax-cuda12-pjrt", "jax-cuda13-pjrt")
ENVIRONMENT = ".venv-targets"
INSTALL = "run `make targets` once (about 200 MB)"


@dataclass(frozen=True, slots=True)
class Toolchain:
    """An interpreter with the CUDA compiler; `versions` name what it compiles with."""

    python: str
    versions: tuple[str, ...]


def find_toolchain(environ: Mapping[str, str] | None = None) -> Toolchain | None:
    """Return the toolchain of this installation, None where `make targets` was not run.

    The interpreter named by `TUNER_TARGETS_PYTHON`; else this one, where the GPU's own extra has
    brought the compiler; else the environment that `make targets` builds beside the main one.

    Raises:
        UsageError: the variable names no interpreter.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get(VARIABLE):
        if not (Path(named).is_file() and os.access(named, os.X_OK)):
            raise UsageError(
                f"{VARIABLE} must be a Python interpreter, but got {named}; unset it or {INSTALL}"
            )
        return Toolchain(named, _installed(Path(named)))
    if any(_is_installed(plugin) for plugin in PLUGINS):
        return Toolchain(sys.executable, _installed(Path(sys.executable)))
    for folder in (Path(sys.prefix).parent, Path(__file__).resolve().parents[2]):
        python = folder / ENVIRONMENT / "bin" / "python"
        if python.exists():
            return Toolchain(str(python), _installed(python))
    return None


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _installed(python: Path) -> tuple[str, ...]:
    """Return name and version of the compiler's packages beside an interpreter."""
    found = python.parent.parent.glob("lib/python*/site-packages/*.dist-info")
    names = (path.name.removesuffix(".dist-info") for path in found)
    return tuple(sorted(name for name in names if name.startswith(("jax", "nvidia"))))
