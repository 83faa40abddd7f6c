"""The platform that a program is written for.

Apart from the choices that depend on it (whole minibatches or chunks, which gradient of a layer)
because a program may be written for a device that is not here: `tuner.child.targets` compiles for
a GPU in a process whose own backend is the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax

_written_for: ContextVar[str | None] = ContextVar("_written_for", default=None)


def for_cpu() -> bool:
    """Return whether what is traced now will run on a CPU: by default jax's own backend."""
    return (_written_for.get() or jax.default_backend()) == "cpu"


@contextmanager
def written_for(platform: str) -> Iterator[None]:
    """Trace for `platform` (`cpu`, `cuda`, …) instead of jax's own backend."""
    token = _written_for.set(platform)
    try:
        yield
    finally:
        _written_for.reset(token)
