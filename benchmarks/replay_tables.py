"""Null tables: what a search may not be seen to gain on, and what it must put up with.

Made from a recorded table, by a seed.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from grid import Grid, Row

from tuner.space import HardwareConfig


def shuffled(grid: Grid, seed: int) -> Grid:
    """Return a table whose measurements belong to configs at random: nothing can be learned."""
    configs = sorted({row.config for row in grid.rows})
    other = dict(zip(configs, random.Random(seed).sample(configs, len(configs)), strict=True))
    return replace(grid, rows=tuple(_as_of(row, other[row.config]) for row in grid.rows))


def flat(grid: Grid, seed: int) -> Grid:
    """Return a table in which every config measures like one of them: all are tied."""
    configs = sorted({row.config for row in grid.rows})
    model = random.Random(seed).choice(configs)
    of_model = [row for row in grid.rows if row.config == model]
    rows = [_as_of(row, config) for config in configs for row in of_model]
    return replace(grid, rows=tuple(rows))


def infeasible(grid: Grid, seed: int, share: float = 0.4) -> Grid:
    """Return a table in which the largest batches, so large a share, run out of memory."""
    configs = sorted({row.config for row in grid.rows}, key=lambda c: (c.batch_size, c))
    lost = set(configs[int(len(configs) * (1 - share)) :])

    def spoilt(row: Row) -> Row:
        if row.config not in lost:
            return row
        gone = replace(
            row.record, status="predicted_oom", reason="over the limit", sps=None, mean_return=None
        )
        return Row(gone, (), None)

    return replace(grid, rows=tuple(map(spoilt, grid.rows)))


def noisy(grid: Grid, seed: int, deviation: float = 0.1) -> Grid:
    """Return a table whose speeds vary by another 10 % from measurement to measurement."""
    draws = random.Random(seed)

    def slowed(row: Row) -> Row:
        factor = max(0.5, draws.gauss(1.0, deviation))
        curve = tuple(replace(point, seconds=point.seconds * factor) for point in row.curve)
        sps = None if row.record.sps is None else row.record.sps / factor
        return replace(row, record=replace(row.record, sps=sps), curve=curve)

    return replace(grid, rows=tuple(map(slowed, grid.rows)))


NULLS: dict[str, Callable[[Grid, int], Grid]] = {
    "shuffled": shuffled,
    "flat": flat,
    "infeasible": infeasible,
    "noisy": noisy,
}


def _as_of(row: Row, config: HardwareConfig) -> Row:
    return replace(row, record=replace(row.record, **config.params()))
