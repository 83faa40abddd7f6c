"""How much of what one measurement says of a config's learning is the luck of its seed?

    .venv/bin/python benchmarks/quality_noise.py --out benchmarks/results/<device>

On the tables of `benchmarks/grids` (see `record_grid.py`): the first two repeats of each config are
held against each other: for the evaluations at the milestones and the end, on whose mean quality
rests, for the final policy's alone, and for means of the training return over the last part of the
curve, at equal env-steps. What has least noise is not yet what is worth most: training returns lag
behind where many environments finish few episodes.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from grid import Grid, Row, add_grids, name_of, read_grid, tables_of
from ppo_document import deliver, facts, parser_of, this_device
from scipy.stats import spearmanr

from tuner.objective import interpolate
from tuner.space import HardwareConfig

POINTS = 200
"""Equal steps of the budget at which a curve is read."""

Estimate = Callable[[Row, Mapping[str, Any]], float | None]
"""Says how well a measurement learned, from its row and the facts of its table."""


def main() -> None:
    """Compare, print and, if asked, write."""
    parser = parser_of(__doc__)
    add_grids(parser)
    arguments = parser.parse_args()
    tables = tables_of(parser, arguments)
    found = {name_of(path): noises(read_grid(path)) for path in tables}
    document = facts(this_device()) | {"tables": found}
    deliver(document, table_of(document), arguments)


def evaluated(row: Row, about: Mapping[str, Any]) -> float | None:
    """Return the mean return of the final policy's evaluation."""
    return None if row.evaluation is None else row.evaluation.mean_return


def learned(row: Row, about: Mapping[str, Any]) -> float | None:
    """Return the mean of all evaluations of the training, None where there is only the last."""
    evaluation = row.evaluation
    if evaluation is None or not evaluation.earlier:
        return None
    return evaluation.learning_return(statistics.fmean(about["chance"]["returns"]))


def trained(row: Row, about: Mapping[str, Any], *, share: float) -> float | None:
    """Return the mean training return over the last `share` of the budget; None without any."""
    points = [
        (point.env_steps, value)
        for point in row.curve
        if point.learning and (value := point.metrics.get("mean_return")) is not None
    ]
    if not points:
        return None
    first = round(POINTS * (1 - share))
    return statistics.fmean(
        interpolate(points, about["env_steps"] * place / POINTS)
        for place in range(first + 1, POINTS + 1)
    )


ESTIMATES: dict[str, Estimate] = {
    "milestones": learned,
    "evaluation": evaluated,
    "last quarter": partial(trained, share=0.25),
    "last half": partial(trained, share=0.5),
    "whole curve": partial(trained, share=1.0),
}


def noises(grid: Grid) -> dict[str, dict[str, Any]]:
    """Return what two repeats of each config tell of every estimate."""
    rows: dict[HardwareConfig, dict[int, Row]] = {}
    for row in grid.rows:
        rows.setdefault(row.config, {})[row.repeat] = row
    pairs = [(known[0], known[1]) for known in rows.values() if {0, 1} <= known.keys()]
    found = {}
    for name, estimate in ESTIMATES.items():
        values = [
            (one, other)
            for pair in pairs
            if (one := estimate(pair[0], grid.facts)) is not None
            and (other := estimate(pair[1], grid.facts)) is not None
        ]
        if values:
            found[name] = noise_of(values)
    return found


def noise_of(pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return how alike two measurements order configs, and the spread of one beside theirs.

    `noise` is the standard deviation of one measurement around its config's mean, `signal` that
    between configs, None where there is more noise than that; both in units of the return.
    """
    noise = math.sqrt(statistics.fmean((one - other) ** 2 for one, other in pairs) / 2)
    total = statistics.pvariance([value for pair in pairs for value in pair])
    between = total - noise**2
    return {
        "configs": len(pairs),
        "rank_correlation": float(spearmanr(*zip(*pairs, strict=True)).statistic),
        "noise": noise,
        "signal": math.sqrt(between) if between > 0 else None,
    }


def table_of(document: dict[str, Any]) -> str:
    """Return the document as a table to read."""
    lines = ["two measurements of each config, other seeds: rank correlation, and one's noise"]
    lines.append(f"{'table':<18}{'return':<16}{'correlation':>12}{'noise / signal':>16}")
    for table, estimates in document["tables"].items():
        for name, found in estimates.items():
            signal = found["signal"]
            ratio = "all noise" if signal is None else f"{found['noise'] / signal:.2f}"
            lines.append(f"{table:<18}{name:<16}{found['rank_correlation']:>12.2f}{ratio:>16}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
