"""What every plot shares: its form, its colours, how text from elsewhere gets into it.

A figure is plain data in plotly's own schema (https://plotly.com/javascript/reference): plotly.js
draws it in the page and in the dashboard alike, and making it costs nothing. Colours are in the
middle of the scale, readable on white and on black; backgrounds are transparent.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.aggregate import ConfigSummary
from tuner.report.numbers import number

Figure = dict[str, Any]

BLUE, ORANGE, GREEN, RED = "#3d87c9", "#d9822b", "#2f9e73", "#d1495b"
PURPLE, GREY, TEXT, GRID = "#9467bd", "#868e96", "#7b8490", "rgba(128,128,128,0.25)"
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, RED, "#8c6d31", "#17a2b8", "#e377c2")
SCALE = [[0.0, "#6a7fd0"], [0.5, "#35b08a"], [1.0, "#f5cf3a"]]
"""From low to high, told apart by lightness too, and nowhere near black or white."""
SHOWN_DIGITS = 5
MOST_POINTS = 150
"""Points of a series; more than a screen has room for would only make the file larger."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its words; without a figure `missing` says why there is none.

    `name` is a valid HTML id, `caption` says how to read it.
    """

    name: str
    title: str
    caption: str
    figure: Figure | None = None
    missing: str | None = None


def plain(text: object) -> str:
    """Return text that plotly shows as it is; it would read tags and entities."""
    return html.escape(str(text), quote=False)


def rounded(value: float | None) -> float | None:
    """Return a number with as many digits as anybody reads."""
    return None if value is None else float(f"{value:.{SHOWN_DIGITS}g}")


def thinned(values: Sequence[Any]) -> list[Any]:
    """Return at most `MOST_POINTS` values, evenly taken, the first and the last among them."""
    if len(values) <= MOST_POINTS:
        return list(values)
    step = (len(values) - 1) / (MOST_POINTS - 1)
    return [values[round(index * step)] for index in range(MOST_POINTS)]


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis."""
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "automargin": True,
        **more,
    }


def layout(**more: Any) -> dict[str, Any]:
    """Return a layout: transparent, its legend below, with room for a narrow screen."""
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": TEXT, "size": 12},
        "margin": {"l": 8, "r": 8, "t": 32, "b": 8},
        "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "height": 420,
        **more,
    }


def described(summary: ConfigSummary) -> str:
    """Return what is told of a config under the pointer."""
    lines = [
        f"<b>{summary.config}</b> (trial {summary.trial})",
        f"{number(summary.sps, ',.0f')} env-steps/s",
        f"quality {number(summary.quality_score, '.3f')}",
        f"utilisation {number(summary.device_util, '.1f')} %",
        f"memory {number(summary.peak_memory_gb, '.3f')} GB",
        f"score {number(summary.final_score, '.3f')}",
    ]
    if summary.status == "success" and summary.ineligible_reason:
        lines.append(f"no profile: {plain(summary.ineligible_reason)}")
    return "<br>".join(lines)


def line(
    x: Sequence[Any], y: Sequence[Any], name: str, colour: str, *, dash: str = "solid"
) -> Figure:
    """Return a trace that is a line."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": 2, "dash": dash},
    }
