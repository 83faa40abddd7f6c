"""Null tables: what a search may not be seen to gain on, and what it must put up with.

Made from a recorded table, by a seed.
"""

import random
import statistics
from collections.abc import Callable
from dataclasses import replace

from grid import Grid, Row

from tuner.space import HardwareConfig

_LEARNED = (
    "mean_return",
    "learning_return",
    "entropy",
    "policy_loss",
    "value_loss",
    "approx_kl",
    "explained_variance",
)
"""What a record tells of learning."""


def shuffled(grid: Grid, seed: int) -> Grid:
    """Return a table whose measurements belong to configs at random: nothing can be learned.

    The baseline keeps its own, which calibrate a study.
    """
    baseline = _baseline(grid)
    configs = sorted({row.config for row in grid.rows} - {baseline})
    other = dict(zip(configs, random.Random(seed).sample(configs, len(configs)), strict=True))
    rows = (_as_of(row, other.get(row.config, baseline)) for row in grid.rows)
    return replace(grid, rows=tuple(rows))


def flat(grid: Grid, seed: int, deviation: float = 0.03) -> Grid:
    """Return a table in which every config measures like the baseline, each with its own luck."""
    configs = sorted({row.config for row in grid.rows})
    of_model = [row for row in grid.rows if row.config == _baseline(grid)]
    rows = [_as_of(row, config) for config in configs for row in of_model]
    return noisy(replace(grid, rows=tuple(rows)), seed, deviation)


def infeasible(grid: Grid, seed: int, share: float = 0.4) -> Grid:
    """Return a table in which the largest batches, so large a share, do not fit into memory.

    Every second one is refused before it runs, the others run out of it as they begin. The
    baseline fits.
    """
    baseline = _baseline(grid)
    configs = sorted({row.config for row in grid.rows}, key=lambda c: (c.batch_size, c))
    lost = [c for c in configs[int(len(configs) * (1 - share)) :] if c != baseline]
    status = {config: ("predicted_oom", "oom")[i % 2] for i, config in enumerate(lost)}

    def spoilt(row: Row) -> Row:
        if row.config not in status:
            return row
        phases = {n: s for n, s in row.record.phases.items() if n in ("start", "compile")}
        gone = replace(
            row.record,
            status=status[row.config],
            reason="does not fit",
            phases=phases,
            duration=sum(phases.values()),
            sps=None,
            device_util=None,
            mean_return=None,
            window_s=None,
        )
        return Row(gone, (), None)

    return replace(grid, rows=tuple(map(spoilt, grid.rows)))


def noisy(grid: Grid, seed: int, deviation: float = 0.1) -> Grid:
    """Return a table whose speeds, and returns above chance, vary by another 10 % each time."""
    draws = random.Random(seed)
    chance = statistics.fmean(grid.facts["chance"]["returns"])

    def lucky(value: float | None, luck: float) -> float | None:
        return None if value is None else chance + (value - chance) * luck

    def disturbed(row: Row) -> Row:
        slower, luck = max(0.5, draws.gauss(1.0, deviation)), draws.gauss(1.0, deviation)
        record, evaluation = row.record, row.evaluation
        if record.sps is not None and record.window_s is not None:
            longer_s = record.window_s * (slower - 1)
            record = replace(
                record,
                sps=record.sps / slower,
                window_s=record.window_s + longer_s,
                duration=None if record.duration is None else record.duration + longer_s,
            )
        if evaluation is not None:
            mean_return = chance + (evaluation.mean_return - chance) * luck
            record = replace(record, mean_return=mean_return)
            earlier = tuple(lucky(value, luck) for value in evaluation.earlier)
            evaluation = replace(evaluation, mean_return=mean_return, earlier=earlier)
        curve = tuple(replace(point, seconds=point.seconds * slower) for point in row.curve)
        return Row(record, curve, evaluation)

    return replace(grid, rows=tuple(map(disturbed, grid.rows)))


def opposed(grid: Grid, seed: int) -> Grid:
    """Return a table in which every config learns as its opposite does, as fast as it itself is.

    Opposite is what has the other end of every dimension: where few epochs and large minibatches
    learned least, they learn most. The baseline learns so, too. What did not succeed stays as it
    is, and so does its opposite.
    """
    ends = {name: sorted(choices) for name, choices in grid.facts["space"].items()}
    rows: dict[tuple[HardwareConfig, int], list[Row]] = {}
    for row in grid.rows:
        rows.setdefault((row.config, row.repeat % 2), []).append(row)

    def opposite(config: HardwareConfig) -> HardwareConfig:
        params = config.params()
        if any(params[name] not in choices for name, choices in ends.items()):
            return config
        return replace(config, **{n: c[-1 - c.index(params[n])] for n, c in ends.items()})

    def taught(row: Row) -> Row:
        own = rows[row.config, row.repeat % 2]
        others = rows.get((opposite(row.config), row.repeat % 2), own)
        place = own.index(row)
        other = others[place % len(others)]
        if not row.record.status == other.record.status == "success":
            return row
        # The same training once more would pass for that of another seed: it has the row's luck.
        luck = 0.0 if place < len(others) else _return(row) - statistics.fmean(map(_return, own))
        evaluation = other.evaluation
        if evaluation is not None:
            evaluation = replace(
                evaluation,
                mean_return=evaluation.mean_return + luck,
                earlier=tuple(None if r is None else r + luck for r in evaluation.earlier),
            )
        learned = {name: getattr(other.record, name) for name in _LEARNED}
        record = replace(row.record, **learned)
        if record.mean_return is not None:
            record = replace(record, mean_return=record.mean_return + luck)
        slower = (other.record.sps or 1.0) / (row.record.sps or 1.0)
        curve = tuple(replace(point, seconds=point.seconds * slower) for point in other.curve)
        return Row(record, curve, evaluation)

    return replace(grid, rows=tuple(map(taught, grid.rows)))


def _return(row: Row) -> float:
    """Return what the final policy of a row's training returned, 0 where it was not evaluated."""
    return 0.0 if row.evaluation is None else row.evaluation.mean_return


NULLS: dict[str, Callable[[Grid, int], Grid]] = {
    "shuffled": shuffled,
    "flat": flat,
    "infeasible": infeasible,
    "noisy": noisy,
    "opposed": opposed,
}
DRAWN = ("shuffled", "flat", "noisy")
"""Nulls in which chance has a part: the others are the same whatever the seed."""


def _baseline(grid: Grid) -> HardwareConfig:
    """Return the config that a study on a table starts from."""
    return HardwareConfig(**grid.facts["baseline"])


def _as_of(row: Row, config: HardwareConfig) -> Row:
    return replace(row, record=replace(row.record, **config.params()))
