"""The memory gate: how much of a device a program may be predicted to take.

Apart from the trial process, which applies it to the device it has opened, because `tuner plan`
applies it to devices that are not here.
"""

import math
import os
from collections.abc import Mapping
from contextlib import suppress

from tuner.errors import UsageError

GATE = 0.95
"""Share of the free memory that a trial may be predicted to take."""
JAX_SHARE = 0.75
"""Share of a GPU's memory that jax's allocator takes where the user does not say."""
SHARE_VARIABLES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def allowed_bytes(free: int | None, *, lowered_to: int | None, reserve: int) -> int | None:
    """Return what the gate allows: 0.95 × `free`, less `reserve`, at most `lowered_to`.

    None where neither what is free nor a limit of the user's is known.
    """
    limit = None if free is None else max(0, int(GATE * free) - reserve)
    if lowered_to is not None:
        return lowered_to if limit is None else min(limit, lowered_to)
    return limit


def allocator_share(environ: Mapping[str, str] | None = None) -> float:
    """Return the share of a GPU's memory that jax's allocator will take, by its own variables.

    Raises:
        UsageError: one of them is no positive number.
    """
    environ = os.environ if environ is None else environ
    for name in SHARE_VARIABLES:
        if text := environ.get(name):
            with suppress(ValueError):
                share = float(text)
                if 0 < share < math.inf:
                    return share
            raise UsageError(f"{name} must be a positive number, but got {text!r}; unset it")
    return JAX_SHARE
