"""The space of a study as a map: what was tried, how it scored, what could not run.

Apart from the other plots because a space has four dimensions or five and a screen has two.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from storage.records import INFEASIBLE_STATUSES
from tuner.aggregate import ConfigSummary
from tuner.report.figures import ORANGE, RED, SCALE, Figure, Plot, axis, described, layout, rounded
from tuner.report.reading import StudyReading
from tuner.space import HardwareConfig, SearchSpace

MOST_ROWS, MOST_COLUMNS = 48, 24
"""Cells of a map of all dimensions; a larger space is shown over fewer of them."""

Key = tuple[int, int, int, float]
"""Steps, minibatches, epochs and learning rate of a row; 0 where it holds all of them."""


def heat_map(study: StudyReading) -> Plot:
    """Return the space: scores as colour, untried cells empty, infeasible ones crossed out."""
    title, space = "The space, cell by cell", study.config.space()
    tried = {s.config: s for s in study.summaries}
    inside = [s for config, s in tried.items() if config in space.config_set()]
    if not inside:
        return Plot("heat_map", title, "", missing="no config of the space has been tried yet")
    rows = _rows(space)
    columns = [str(value) for value in space.num_envs]
    cells: dict[tuple[str, str], list[ConfigSummary]] = {}
    for summary in inside:
        place = str(summary.config.num_envs), rows[_row_key(summary.config, rows)]
        cells.setdefault(place, []).append(summary)
    best = {place: _best_of(found) for place, found in cells.items()}
    labels = list(rows.values())
    scores = [[_score(best.get((x, y))) for x in columns] for y in labels]
    texts = [[described(s) if (s := best.get((x, y))) else "" for x in columns] for y in labels]
    bar = {"title": {"text": "score"}, "thickness": 12}
    traces: list[dict[str, Any]] = [
        {
            "type": "heatmap",
            "x": columns,
            "y": labels,
            "z": scores,
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "colorscale": SCALE,
            "xgap": 2,
            "ygap": 2,
            "colorbar": bar,
            "hoverongaps": False,
        }
    ]
    without = {place: s for place, s in best.items() if _score(s) is None}
    infeasible = {p: s for p, s in without.items() if s.status in INFEASIBLE_STATUSES}
    others = {place: s for place, s in without.items() if place not in infeasible}
    traces += _marks(infeasible, "infeasible", "x", RED)
    traces += _marks(others, "ran, or failed, without a score", "circle-open", ORANGE)
    y_title, merged = _told(space, rows)
    return Plot(
        "heat_map",
        title,
        f"{len(inside)} of {len(space.config_set()):,} configs were tried; an empty cell was not."
        + (f" A cell shows the best of all {merged}." if merged else ""),
        {
            "data": traces,
            "layout": layout(
                xaxis=axis("num_envs", type="category", categoryarray=columns, showgrid=False),
                yaxis=axis(y_title, type="category", categoryarray=labels, showgrid=False),
                plot_bgcolor="rgba(128,128,128,0.14)",
                height=min(900, 150 + 20 * max(10, len(labels))),
            ),
        },
    )


def _rows(space: SearchSpace) -> dict[Key, str]:
    """Return the rows of the heat map by what configs have in common there, with their labels."""
    numbers = list(itertools.product(space.num_steps, space.num_minibatches, space.num_epochs))
    label = "{} · mb{} · ep{}".format
    choices: list[dict[Key, str]] = [{(*n, 0): label(*n) for n in numbers}]
    if space.learning_rate:
        pairs = list(itertools.product(numbers, space.learning_rate))
        choices.insert(0, {(*n, rate): f"{label(*n)} · lr{rate:g}" for n, rate in pairs})
    for rows in choices:
        if len(rows) <= MOST_ROWS and len(space.num_envs) <= MOST_COLUMNS:
            return rows
    return {(steps, 0, 0, 0): str(steps) for steps in space.num_steps}


def _row_key(config: HardwareConfig, rows: Mapping[Key, str]) -> Key:
    numbers = (config.num_steps, config.num_minibatches, config.num_epochs)
    keys: list[Key] = [(*numbers, config.learning_rate or 0), (*numbers, 0)]
    return next((key for key in keys if key in rows), (config.num_steps, 0, 0, 0))


def _told(space: SearchSpace, rows: Mapping[Key, str]) -> tuple[str, str]:
    """Return what the rows are of, and what a cell holds the best of: nothing in a whole map."""
    _, minibatches, _, rate = next(iter(rows))
    if minibatches == 0:
        merged = "minibatches, epochs and learning rates" if space.learning_rate else ""
        return "num_steps", merged or "minibatches and epochs"
    title = "num_steps · minibatches · epochs"
    if rate:
        return f"{title} · learning rate", ""
    return title, "learning rates" if space.learning_rate else ""


def _best_of(found: Sequence[ConfigSummary]) -> ConfigSummary:
    return max(found, key=lambda s: -math.inf if _score(s) is None else float(s.final_score or 0))


def _score(summary: ConfigSummary | None) -> float | None:
    return None if summary is None else rounded(summary.final_score)


def _marks(
    cells: Mapping[tuple[str, str], ConfigSummary], name: str, symbol: str, colour: str
) -> list[Figure]:
    if not cells:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "showlegend": True,
            "x": [x for x, _ in cells],
            "y": [y for _, y in cells],
            "text": [f"{s.config}: {s.status}" for s in cells.values()],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"symbol": symbol, "size": 9, "color": colour},
        }
    ]
