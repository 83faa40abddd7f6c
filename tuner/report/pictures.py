"""A figure as a small SVG image: the dashboard shows images of a trial, and no interactive plots.

Apart from the figures because nothing else here draws: plotly would start a browser to make an
image. Each axis of a figure becomes a lane with its own scale.
"""

from typing import Any

from tuner.report.figures import Figure, Plot
from tuner.report.templates import render

WIDTH, LANE = 640, 120
LEFT, RIGHT, TOP, GAP = 60, 12, 8, 12


def svg(plot: Plot) -> str | None:
    """Return the image of a plot of lines, `None` where there is no figure."""
    if plot.figure is None:
        return None
    traces = plot.figure["data"]
    xs = [x for trace in traces for x in trace["x"] if x is not None]
    span = min(xs), max(xs)
    places = list(dict.fromkeys(trace.get("yaxis", "y") for trace in traces))
    lanes = [
        _lane([t for t in traces if t.get("yaxis", "y") == place], span, index)
        for index, place in enumerate(places)
    ]
    unit = plot.figure["layout"]["xaxis"]["title"]["text"]
    return render(
        "chart.svg.j2",
        title=plot.title,
        width=WIDTH,
        height=TOP + len(lanes) * (LANE + GAP) + 20,
        plot_width=WIDTH - LEFT - RIGHT,
        plot_height=LANE,
        lanes=lanes,
        start=f"{span[0]:,.4g}",
        end=f"{span[1]:,.4g} {unit}",
    )


def _lane(traces: list[Figure], span: tuple[float, float], index: int) -> dict[str, Any]:
    values = [y for trace in traces for y in trace["y"] if y is not None]
    low, high = min(values), max(values)

    def place(x: float, y: float) -> str:
        across = (x - span[0]) / ((span[1] - span[0]) or 1.0)
        up = (y - low) / ((high - low) or 1.0)
        return f"{across * (WIDTH - LEFT - RIGHT):.1f},{(1 - up) * (LANE - 24) + 20:.1f}"

    return {
        "top": TOP + index * (LANE + GAP),
        "low": f"{low:,.3g}",
        "high": f"{high:,.3g}",
        "traces": [
            {
                "name": trace["name"],
                "colour": trace["line"]["color"],
                "points": " ".join(
                    place(x, y)
                    for x, y in zip(trace["x"], trace["y"], strict=True)
                    if y is not None
                ),
            }
            for trace in traces
        ],
    }
