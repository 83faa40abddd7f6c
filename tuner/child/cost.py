"""The work in a program, counted on its jaxpr: arithmetic, memory traffic and kernels.

Apart from the compiler's own cost analysis because that counts the body of a loop once, whatever
the trip count, and an update of PPO is loops within loops. Nothing is compiled or run.

**flops**: operations of arithmetic, integers included. A product of matrices is 2·batch·M·N·K, a
convolution likewise; elementwise operations are 1 per element of the result, transcendental ones
10 (about the polynomials that compilers put in their place); reductions 1 per element that goes in;
a sort n·log₂ n; random bits 58 per 32-bit word (threefry). Moving and converting data is 0.

**bytes**: traffic that a compiler which fuses well cannot avoid. Products, reductions, sorts,
gathers, scatters, concatenations, dynamic slices and random bits read what they need from memory
and write their result; elementwise operations, broadcasts, reshapes and conversions are computed
within whatever consumes them, so that their consumer reads what *they* are computed from. What a
loop body or branch returns is written, and read by whoever wants it, in every iteration. Gathers
and dynamic slices read what they return; scatters and dynamic updates are in place and touch only
the part that they change.

**kernels**: how many of these operations are executed, and for every program, loop body and branch
one for each shape of fused results that it returns: about the least that a device is told to do.
XLA's CPU programs hold about twice as many, and run random bits as loops of some 80 small ones.

Left out: caches (small programs are served from them, so bytes per second may exceed what memory
delivers); copies that a compiler inserts; the several passes of a sort; arithmetic done again
where one fused value has several consumers; siblings merged into one kernel; padding; which branch
is taken (the largest is counted).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

TRANSCENDENTAL_FLOPS = 10
WORD_FLOPS = 58
"""Threefry-2x32 makes two words in 20 rounds of an addition, a rotation (3 operations) and an
exclusive or, with 5 additions of keys of 3 operations and 2 at the start: 117 for two words."""

# fmt: off
_TRANSCENDENTAL = frozenset((
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "digamma",
    "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "lgamma", "log", "log1p", "logistic", "pow",
    "sin", "sinh", "tan", "tanh",
))
_SAME_VALUE = frozenset((
    "copy", "copy_p", "expand_dims", "optimization_barrier", "random_unwrap", "random_wrap",
    "reshape", "squeeze", "stop_gradient",
))
_MOVED = frozenset((
    "bitcast_convert_type", "broadcast_in_dim", "convert_element_type", "iota", "pad", "rev",
    "transpose",
))
_CUMULATIVE = frozenset(("cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"))
_REDUCING = frozenset((
    "argmax", "argmin", "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or",
    "reduce_prod", "reduce_sum", "reduce_xor",
))
_OPAQUE = frozenset((
    "cholesky", "eig", "eigh", "fft", "householder_product", "io_callback", "lu", "pure_callback",
    "qr", "schur", "svd", "tridiagonal",
))
# fmt: on
"""Keep a shape like elementwise operations do, but take far more than one operation an element."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Work of one execution of a program; see the module for what counts.

    `is_lower_bound` says that it holds a loop whose trip count the program does not tell (its body
    is counted once) or an operation without a rule (1 per element of its result).
    """

    flops: float = 0.0
    bytes: float = 0.0
    kernels: float = 0.0
    is_lower_bound: bool = False

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.kernels + other.kernels,
            self.is_lower_bound or other.is_lower_bound,
        )

    def times(self, trips: int) -> "Cost":
        """Return the cost of `trips` executions."""
        return Cost(
            self.flops * trips, self.bytes * trips, self.kernels * trips, self.is_lower_bound
        )


def count(jaxpr: ClosedJaxpr) -> Cost:
    """Return the cost of one execution of a program, as `jax.make_jaxpr` gives it."""
    return _scope(jaxpr.jaxpr)


@dataclass(frozen=True, slots=True, eq=False)
class _Array:
    """An array in memory; two are the same only if they are one object."""

    nbytes: float


@dataclass(frozen=True, slots=True)
class _Value:
    """A value: the arrays that it is computed from, and whether it is itself in memory."""

    origins: frozenset[_Array]
    is_stored: bool

    @staticmethod
    def stored(nbytes: float) -> "_Value":
        return _Value(frozenset({_Array(nbytes)}), is_stored=True)


Counted = tuple[Cost, list[_Value]]


def _scope(jaxpr: Jaxpr) -> Cost:
    """Count a program, loop body or branch: its arguments are in memory, its results go there."""
    cost, results = _run(jaxpr, [_Value.stored(_nbytes(var)) for var in jaxpr.invars])
    return cost + _store(jaxpr.outvars, results)


def _run(jaxpr: Jaxpr, arguments: Sequence[_Value]) -> Counted:
    """Count the equations of a program and return its results, stored or not."""
    known = {var: _Value.stored(_nbytes(var)) for var in jaxpr.constvars}
    known |= dict(zip(jaxpr.invars, arguments, strict=True))

    def value(atom: Any) -> _Value:
        return _Value(frozenset(), is_stored=True) if isinstance(atom, Literal) else known[atom]

    total = Cost()
    for equation in _wanted(jaxpr):
        cost, results = _equation(equation, [value(atom) for atom in equation.invars])
        known |= dict(zip(equation.outvars, results, strict=True))
        total += cost
    return total, [value(atom) for atom in jaxpr.outvars]


def _wanted(jaxpr: Jaxpr) -> list[Any]:
    """Return the equations whose results are used: a compiler leaves out the others."""
    used = set(filter(_is_variable, jaxpr.outvars))
    wanted = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or not used.isdisjoint(equation.outvars):
            wanted.append(equation)
            used.update(filter(_is_variable, equation.invars))
    return wanted[::-1]


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, Literal)


def _equation(equation: Any, operands: list[_Value]) -> Counted:
    name, params = equation.primitive.name, equation.params
    results = [_Value.stored(_nbytes(var)) for var in equation.outvars]
    if name == "scan":
        body = _scope(params["jaxpr"].jaxpr).times(params["length"])
        return _store(equation.invars, operands) + body, results
    if name == "while":
        return _store(equation.invars, operands) + _while(equation), results
    if name == "cond":
        branches = [_scope(branch.jaxpr) for branch in params["branches"]]
        largest = max(branches, key=lambda cost: (cost.flops, cost.bytes, cost.kernels))
        return _store(equation.invars, operands) + largest, results
    if (called := _called(equation)) is not None:
        return _run(called, operands)
    if name in _SAME_VALUE:
        return Cost(), operands
    size = sum(_size(var) for var in equation.outvars)
    if size == 0:
        return Cost(), results
    if (rule := _MATERIALISING.get(name)) is not None:
        return Cost(rule(equation), _traffic(equation, operands), 1), results
    if name in ("slice", "split", "unstack"):
        # Whoever consumes it reads this part alone.
        return Cost(), [_Value(result.origins, is_stored=False) for result in results]
    if name in _MOVED or _is_elementwise(equation):
        weight = TRANSCENDENTAL_FLOPS if name in _TRANSCENDENTAL else int(name not in _MOVED)
        origins = frozenset().union(*(operand.origins for operand in operands))
        fused = _Value(origins, is_stored=False)
        return Cost(weight * size), [fused] * len(equation.outvars)
    return Cost(size, _traffic(equation, operands), 1, is_lower_bound=True), results


def _store(atoms: Sequence[Any], values: Sequence[_Value]) -> Cost:
    """Return the cost of bringing to memory what is not there yet, one kernel for each shape."""
    missing = {
        id(atom): (atom, value)
        for atom, value in zip(atoms, values, strict=True)
        if not value.is_stored and _size(atom) > 0
    }.values()
    written = sum(_nbytes(atom) for atom, _ in missing)
    shapes = {atom.aval.shape for atom, _ in missing}
    return Cost(0, written + _read(value for _, value in missing), len(shapes))


def _read(values: Iterable[_Value]) -> float:
    """Return the bytes of the arrays that some values are computed from, each once."""
    origins: frozenset[_Array] = frozenset().union(*(value.origins for value in values))
    return sum(array.nbytes for array in origins)


def _traffic(equation: Any, operands: list[_Value]) -> float:
    """Return the bytes that a materialising operation reads and writes."""
    name = equation.primitive.name
    written = sum(_nbytes(var) for var in equation.outvars)
    if name in ("gather", "dynamic_slice"):
        return _read(operands[1:]) + 2 * written
    if name.startswith("scatter"):
        changed = _nbytes(equation.invars[2])
        touched = changed if name == "scatter" else 2 * changed  # the others read it as well
        return _store(equation.invars[:1], operands[:1]).bytes + _read(operands[1:]) + touched
    if name == "dynamic_update_slice":
        changed = _nbytes(equation.invars[1])
        return _store(equation.invars[:1], operands[:1]).bytes + _read(operands[1:]) + changed
    return _read(operands) + written


def _while(equation: Any) -> Cost:
    """Count a loop that ends on a condition: by its trip count, or once where that is unknown."""
    body = _scope(equation.params["body_jaxpr"].jaxpr)
    condition = _scope(equation.params["cond_jaxpr"].jaxpr)
    trips = _trip_count(equation)
    if trips is None:
        return body + condition + Cost(is_lower_bound=True)
    return body.times(trips) + condition.times(trips + 1)


def _trip_count(equation: Any) -> int | None:
    """Return how often a counting loop runs, `None` where its jaxprs do not tell.

    Knows what `jax.lax.fori_loop` makes of constant bounds: a condition `i < n`, a body that adds
    a constant to `i` and hands `n` on, and constants for both at the start.
    """
    params = equation.params
    condition, body = params["cond_jaxpr"].jaxpr, params["body_jaxpr"].jaxpr
    start = equation.invars[params["cond_nconsts"] + params["body_nconsts"] :]
    carried = body.invars[params["body_nconsts"] :]
    tested = condition.invars[params["cond_nconsts"] :]
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name != "lt":
        return None
    counter, bound = condition.eqns[0].invars
    if counter not in tested:
        return None
    index = tested.index(counter)
    if isinstance(bound, Var):
        if bound not in tested:
            return None
        place = tested.index(bound)
        if body.outvars[place] is not carried[place]:
            return None
        bound = start[place]
    step = _step(body, carried[index], body.outvars[index])
    if step is None or not (isinstance(start[index], Literal) and isinstance(bound, Literal)):
        return None
    return max(0, math.ceil((int(bound.val) - int(start[index].val)) / step))


def _step(body: Jaxpr, before: Any, after: Any) -> int | None:
    """Return the positive whole number that a loop body adds to its counter."""
    if before.aval.dtype.kind not in "iu":
        return None
    for equation in body.eqns:
        if after in equation.outvars and equation.primitive.name == "add":
            others = [atom for atom in equation.invars if atom is not before]
            if len(others) == 1 and isinstance(others[0], Literal) and others[0].val > 0:
                return int(others[0].val)
    return None


def _called(equation: Any) -> Any:
    """Return the program that an equation calls as it stands (jit, custom_jvp, remat, …)."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        called = equation.params.get(name)
        called = getattr(called, "jaxpr", called)
        # A reduction, or a kernel written by hand, has a program of other arguments than its own.
        if isinstance(called, Jaxpr) and _shapes(called.invars) == _shapes(equation.invars):
            return called
    return None


def _is_elementwise(equation: Any) -> bool:
    """Whether all results have one shape and every operand is a scalar or broadcast to it."""
    shape, *others = _shapes(equation.outvars)
    return (
        equation.primitive.name not in _OPAQUE
        and all(other == shape for other in others)
        and all(_broadcasts(operand, shape) for operand in _shapes(equation.invars))
    )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    fits = all(size in (1, other) for size, other in zip(shape, to, strict=False))
    return shape == () or (len(shape) == len(to) and fits)


def _shapes(atoms: Sequence[Any]) -> list[tuple[int, ...]]:
    return [getattr(atom.aval, "shape", (0,)) for atom in atoms]


def _dot_flops(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return float(2 * _size(equation.outvars[0]) * math.prod(shape[axis] for axis in contracted))


def _conv_flops(equation: Any) -> float:
    kernel = equation.invars[1].aval
    features = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
    return float(2 * _size(equation.outvars[0]) * kernel.size / features)


def _sort_flops(equation: Any) -> float:
    operand = equation.invars[0].aval
    length = operand.shape[equation.params.get("dimension", -1)]
    return float(operand.size * math.log2(max(length, 1)))


def _input_size(equation: Any) -> float:
    return _size(equation.invars[0])


def _random_flops(equation: Any) -> float:
    return WORD_FLOPS * sum(_nbytes(var) for var in equation.outvars) / 4


def _update_size(equation: Any) -> float:
    return _size(equation.invars[2])


_MATERIALISING: dict[str, Callable[[Any], float]] = {
    "dot_general": _dot_flops,
    "conv_general_dilated": _conv_flops,
    "sort": _sort_flops,
    "top_k": _sort_flops,
    **dict.fromkeys(_REDUCING | _CUMULATIVE, _input_size),
    **dict.fromkeys(
        ("random_bits", "random_split", "random_fold_in", "random_seed", "threefry2x32"),
        _random_flops,
    ),
    **dict.fromkeys(("scatter-add", "scatter-mul", "scatter-min", "scatter-max"), _update_size),
    **dict.fromkeys(
        ("concatenate", "stack", "dynamic_slice", "dynamic_update_slice", "gather", "scatter"),
        lambda equation: 0.0,
    ),
}
"""Operations that read memory and write memory, with their arithmetic."""


def _size(atom: Any) -> float:
    return float(math.prod(_shapes([atom])[0]))


def _nbytes(atom: Any) -> float:
    """Return the size of a value in memory; tokens have none."""
    return float(_size(atom) * atom.aval.dtype.itemsize) if hasattr(atom.aval, "dtype") else 0.0
