"""A recorded table as if its trials had been shorter, or evaluated less often."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from grid import Grid, Row

from storage.records import CurvePoint
from tuner.measurement import Evaluation
from tuner.outcome import Completed
from tuner.protocol import MILESTONES


def without_milestones(grid: Grid) -> Grid:
    """Return a table as if policies had been evaluated at their end alone."""
    rows = [
        row if row.evaluation is None
        else replace(row, evaluation=replace(row.evaluation, earlier=()))
        for row in grid.rows
    ]  # fmt: skip
    return Grid(grid.facts, tuple(rows))


def cut(grid: Grid, share: float) -> Grid:
    """Return a table as if every trial had trained for a share of its env-steps."""
    env_steps = math.ceil(grid.facts["env_steps"] * share)
    rows = tuple(_cut_row(row, share, env_steps) for row in grid.rows)
    return Grid({**grid.facts, "env_steps": env_steps}, rows)


def _cut_row(row: Row, share: float, env_steps: int) -> Row:
    """Return a row up to the first block that ends at or past `env_steps`.

    Its speed is that of these blocks, its utilisation and its interval are those of the whole row.
    """
    learning = [point for point in row.curve if point.learning]
    kept = tuple(
        p for i, p in enumerate(learning) if i == 0 or learning[i - 1].env_steps < env_steps
    )
    evaluation = _evaluation(row, share) or _from_training(row, kept)
    if row.record.status != "success" or evaluation is None:
        return replace(row, curve=kept, evaluation=None)
    if share >= 1.0:
        return replace(row, evaluation=evaluation)
    speed = replace(row, curve=kept).measurement(Completed()).throughput
    record = replace(
        row.record,
        mean_return=evaluation.mean_return,
        env_steps=kept[-1].env_steps,
        sps=None if speed is None else speed.sps,
    )
    return Row(record, kept, evaluation)


def _evaluation(row: Row, share: float) -> Evaluation | None:
    """Return what was evaluated up to a share of the budget, None where nothing was at its end."""
    whole = row.evaluation
    if whole is None:
        return None
    places = MILESTONES if whole.earlier else ()
    known = dict(zip((*places, 1.0), (*whole.earlier, whole.mean_return), strict=True))
    if (last := known.get(share)) is None:
        return None
    before = tuple(value for milestone, value in known.items() if milestone < share)
    return replace(whole, mean_return=last, earlier=before)


def _from_training(row: Row, curve: Sequence[CurvePoint]) -> Evaluation | None:
    """Return what the last quarter of a training returned, as if it were evaluated."""
    tail = [p.metrics.get("mean_return") for p in curve[-max(2, len(curve) // 4) :]]
    known = [value for value in tail if value is not None]
    if len(known) < 2:
        return None
    error = statistics.stdev(known) / math.sqrt(len(known))
    changed = None if row.evaluation is None else row.evaluation.params_changed
    return Evaluation(statistics.fmean(known), error, params_changed=changed)
