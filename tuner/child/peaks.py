"""What this device reaches: multiplying matrices, moving memory, starting kernels.

Each peak is the best of repetitions within a fraction of a second, because whatever disturbs a
repetition makes it slower and nothing makes it faster. All of it takes about two seconds beside
compiling. Apart from trials because it is measured once per machine (`tuner.peaks` keeps it).
"""

import contextlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from tuner.child.memory import limit_bytes
from tuner.peaks import Peaks

BUDGET_S, LIMIT_S = 0.4, 1.0
MIN_REPEATS, MAX_REPEATS = 3, 30
"""Repetitions go on until `BUDGET_S` is spent and there are a few, or until `LIMIT_S` is spent: a
slow machine is measured in fewer."""

PROBE_S = 1.0
"""How long each half of the probe beside a trial takes."""

CPU_SIDE, GPU_SIDE, SMALLEST_SIDE = 1024, 8192, 256
"""Sides of the square matrices: large enough for the product to outweigh starting it."""

COPY_BYTES = 2**29
CACHES, FEWEST_CACHES = 4, 2
"""A copy's array has at least so many bytes, and four times those of the last-level cache; where
less than twice those fit, the cache would be measured and not the memory."""
UNKNOWN_CACHE_BYTES = 2**28
"""Where the cache's size cannot be read: the largest of present accelerators (256 MiB)."""
UNKNOWN_FREE_BYTES = 2**32
FREE_SHARE = 1 / 4
"""Share of the free memory that a measurement may hold."""

CHAIN = 8
SHORT, LONG = 250, 1000
"""Dependent kernels in an iteration, and iterations of the two loops whose times are compared."""


class Unmeasurable(Exception):
    """A peak cannot be measured on this device now; the message says why."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Repetitions of one run: the shortest, and (longest − shortest) / median."""

    best_s: float
    spread: float


@dataclass(frozen=True, slots=True)
class Run:
    """Something to repeat, and the FLOP or bytes in one repetition."""

    run: Callable[[], jax.Array]
    amount: float


def measure_peaks(device: jax.Device) -> Peaks:
    """Measure what `device` reaches; what it cannot be asked is None, with the reason.

    The device must be idle. Holds at most a quarter of the memory that is free.
    """
    is_cpu = device.platform == "cpu"
    reasons: list[str] = []
    free = limit_bytes(device, None, 0)
    free = UNKNOWN_FREE_BYTES if free is None else free
    measured: dict[str, float | None] = {}

    def attempt(name: str, spread: str, measure: Callable[[], tuple[float, float]]) -> None:
        try:
            measured[name], measured[spread] = measure()
        except (Unmeasurable, jax.errors.JaxRuntimeError) as error:
            reasons.append(f"{name}: {' '.join(str(error).split())[:200]}")

    with jax.default_device(device):
        attempt("matmul_flops_per_s", "matmul_spread", lambda: matmul(device, jnp.float32, free))
        if is_cpu:
            reasons.append("bfloat16_flops_per_s: a CPU is held against float32")
        else:
            attempt(
                "bfloat16_flops_per_s",
                "bfloat16_spread",
                lambda: matmul(device, jnp.bfloat16, free),
            )
        cache = last_level_cache_bytes() if is_cpu else None
        attempt("copy_bytes_per_s", "copy_spread", lambda: copy(cache, free))
        attempt("launch_s", "launch_spread", launch)
    return Peaks(**measured, reason="; ".join(reasons) or None)


def probe(device: jax.Device) -> dict[str, float]:
    """Return what matmul and copy reach on average over a second each: the machine's present speed.

    A mean and not a best: whatever slows the machine down slows a trial beside it too. What cannot
    be measured is left out.
    """
    found: dict[str, float] = {}
    free = limit_bytes(device, None, 0) or UNKNOWN_CACHE_BYTES * 8
    cache = last_level_cache_bytes() if device.platform == "cpu" else None
    with jax.default_device(device):
        with contextlib.suppress(Unmeasurable, jax.errors.JaxRuntimeError):
            found["matmul_flops_per_s"] = mean_rate(matmul_run(device, jnp.float32, free))
        with contextlib.suppress(Unmeasurable, jax.errors.JaxRuntimeError):
            found["copy_bytes_per_s"] = mean_rate(copy_run(cache, free))
    return found


def mean_rate(work: Run) -> float:
    """Return the work done in a second, over the repetitions of about `PROBE_S`."""
    work.run().block_until_ready()
    started, number = time.perf_counter(), 0
    while time.perf_counter() - started < PROBE_S:
        work.run().block_until_ready()
        number += 1
    return number * work.amount / (time.perf_counter() - started)


def matmul(device: jax.Device, dtype: Any, free: int) -> tuple[float, float]:
    """Return the FLOP/s of a product of square matrices at jax's default precision, and spread.

    Raises:
        Unmeasurable: as `matmul_run`.
    """
    work = matmul_run(device, dtype, free)
    timing = time_of(work.run)
    return work.amount / timing.best_s, timing.spread


def matmul_run(device: jax.Device, dtype: Any, free: int) -> Run:
    """Return a product of square matrices, its amount in FLOP.

    Args:
        device: fixes the size.
        dtype: of both operands and the result.
        free: bytes of free memory.

    Raises:
        Unmeasurable: there is not even memory for small matrices.
    """
    side = CPU_SIDE if device.platform == "cpu" else GPU_SIDE
    while 3 * side**2 * jnp.dtype(dtype).itemsize > FREE_SHARE * free:
        side //= 2
        if side < SMALLEST_SIDE:
            raise Unmeasurable(f"{free} bytes of free memory are too few for a matrix product")
    # Values of many bits: products of ones take less power, and clocks follow power.
    values = jax.jit(lambda: jnp.sin(jnp.arange(side**2, dtype=jnp.float32)).astype(dtype))
    matrix = values().reshape(side, side)
    multiply = jax.jit(jnp.matmul)
    return Run(lambda: multiply(matrix, matrix), 2 * side**3)


def copy(cache_bytes: int | None, free: int) -> tuple[float, float]:
    """Return the bytes per second, read and written, of a pass over an array, and spread.

    Raises:
        Unmeasurable: as `copy_run`.
    """
    work = copy_run(cache_bytes, free)
    timing = time_of(work.run)
    return work.amount / timing.best_s, timing.spread


def copy_run(cache_bytes: int | None, free: int) -> Run:
    """Return a pass over an array, its amount in bytes read and written.

    The array is updated in place: writing to fresh pages would time the operating system.

    Args:
        cache_bytes: of the last-level cache; None where unknown.
        free: bytes of free memory.

    Raises:
        Unmeasurable: the array that fits in memory would mostly fit in the cache.
    """
    cache = UNKNOWN_CACHE_BYTES if cache_bytes is None else cache_bytes
    size = int(min(max(CACHES * cache, COPY_BYTES), FREE_SHARE * free))
    if size < FEWEST_CACHES * cache:
        raise Unmeasurable(
            f"an array of {FEWEST_CACHES * cache} bytes must fit in a quarter of the free memory, "
            f"but got {free} bytes free; end what else holds memory"
        )
    number = size // 4
    held: list[jax.Array] = [jax.jit(lambda: jnp.zeros(number, jnp.float32))()]
    step = jax.jit(lambda x: x * 0.5 + 1.0, donate_argnums=0)

    def run() -> jax.Array:
        held[0] = step(held[0])
        return held[0]

    return Run(run, 2 * 4 * number)


def launch() -> tuple[float, float]:
    """Return the seconds of one dependent small kernel within a compiled loop, and spread.

    The difference between a long and a short loop, so that what starting the program takes drops
    out; the loop's own cost is shared by the `CHAIN` kernels of an iteration.

    Raises:
        Unmeasurable: noise made the long loop the faster one.
    """
    start = jnp.eye(CHAIN, dtype=jnp.float32)
    short, long = (jax.jit(chain(length)) for length in (SHORT, LONG))
    short_s, long_s = time_of(lambda: short(start)), time_of(lambda: long(start))
    seconds = (long_s.best_s - short_s.best_s) / ((LONG - SHORT) * CHAIN)
    if seconds <= 0:
        raise Unmeasurable(f"{LONG} iterations took no longer than {SHORT}: the device is busy")
    return seconds, long_s.spread


def chain(iterations: int) -> Callable[[jax.Array], jax.Array]:
    """Return a loop over `CHAIN` kernels that no compiler merges.

    Each needs a mean over all rows of the one before, and so has to wait for it to be complete.
    The reduction is not along the last axis: XLA computes several such ones in one kernel on a GPU.
    """

    def body(values: jax.Array, nothing: None) -> tuple[jax.Array, None]:
        for _ in range(CHAIN):
            values = 0.5 * (values + values.mean(axis=0, keepdims=True))
        return values, nothing

    def loop(start: jax.Array) -> jax.Array:
        end: jax.Array = jax.lax.scan(body, start, None, length=iterations)[0]
        return end

    return loop


def time_of(run: Callable[[], jax.Array]) -> Timing:
    """Time repetitions of `run`, each to the end of its result, after one that is not counted."""
    run().block_until_ready()
    seconds: list[float] = []
    while len(seconds) < MAX_REPEATS and sum(seconds) < LIMIT_S:
        if len(seconds) >= MIN_REPEATS and sum(seconds) >= BUDGET_S:
            break
        started = time.perf_counter()
        run().block_until_ready()
        seconds.append(time.perf_counter() - started)
    best = min(seconds)
    return Timing(best, (max(seconds) - best) / statistics.median(seconds))


def last_level_cache_bytes(root: Path = Path("/")) -> int | None:
    """Return the size of all last-level caches of this machine's CPUs, None where it is not told.

    Source: `/sys/devices/system/cpu/cpu*/cache/index*` (sysfs-devices-system-cpu); caches that
    several cores share are counted once.
    """
    caches: dict[tuple[int, str], int] = {}
    for folder in root.glob("sys/devices/system/cpu/cpu[0-9]*/cache/index*"):
        try:
            level = int((folder / "level").read_text())
            shared_by = (folder / "shared_cpu_list").read_text().strip()
            size = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if size.endswith("K") and size[:-1].isdigit():
            caches[level, shared_by] = 1024 * int(size[:-1])
    last = max((level for level, _ in caches), default=None)
    total = math.fsum(size for (level, _), size in caches.items() if level == last)
    return int(total) or None
