"""What a traced program is made of, for tests that prove it pure."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Yield every equation, those of inner programs (loops, branches, calls) included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def impurities(fun: Callable[..., Any], *args: Any) -> list[str]:
    """Return what a pure float32 program may not hold: callbacks, and 64-bit values."""
    found = []
    for equation in equations(jax.make_jaxpr(fun)(*args).jaxpr):
        name = equation.primitive.name
        if "callback" in name or name in {"infeed", "outfeed"}:
            found.append(name)
        for variable in (*equation.invars, *equation.outvars):
            dtype = str(getattr(variable.aval, "dtype", ""))
            if dtype in {"float64", "int64", "uint64"}:
                found.append(f"{name}: {dtype}")
    return found
