"""The plots of a study: drawn in its HTML page and, some of them, in the dashboard."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.aggregate import ConfigSummary, hardware_of
from tuner.report.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    SCALE,
    Figure,
    Plot,
    axis,
    described,
    layout,
    line,
    rounded,
)
from tuner.report.overview import front_of
from tuner.report.reading import StudyReading
from tuner.report.space_map import heat_map
from tuner.report.story import phase_seconds
from tuner.space import DIMENSIONS, LEARNING_RATE, HardwareConfig

MEASURES = {"sps": "env-steps/s", "quality_score": "quality", "device_util": "utilisation, %"}
NO_RESULT = "no measurement has succeeded yet"


def pareto(study: StudyReading, chosen: Mapping[str, HardwareConfig]) -> Plot:
    """Return every measured config in two of the three aims, the third as colour.

    Args:
        study: what was measured.
        chosen: the profiles' configs by name.
    """
    words = ("pareto", "Pareto front")
    has_quality = study.references is not None and "quality" in study.references.components
    y, colour = ("quality_score", "device_util") if has_quality else ("device_util", "")
    shown = _measured(study, "sps", y)
    if not shown:
        return Plot(*words, "", missing=f"{NO_RESULT} with both throughput and {MEASURES[y]}")
    is_coloured = bool(colour) and all(getattr(s, colour) is not None for s in shown)
    marker: dict[str, Any] = {"size": 9, "color": BLUE}
    if is_coloured:
        bar = {"title": {"text": MEASURES[colour]}, "thickness": 12, "len": 0.9}
        values = [rounded(getattr(s, colour)) for s in shown]
        marker |= {"color": values, "colorscale": SCALE, "colorbar": bar}
    front, baseline = set(front_of(study)), study.baseline()
    traces = [_points(shown, y, "measured", **marker)]
    on_front = [s for s in shown if s.trial in front]
    traces.append(_rings(on_front, y, "on the front", "circle-open", 15, GREY))
    traces.append(_rings([s for s in shown if s is baseline], y, "baseline", "x-thin", 14, RED))
    symbols = zip(("square-open", "diamond-open", "star-open"), (ORANGE, GREEN, RED), strict=True)
    for (name, config), (symbol, ring) in zip(chosen.items(), symbols, strict=False):
        traces.append(_rings([s for s in shown if s.config == config], y, name, symbol, 20, ring))
    third = f" Colour is {MEASURES[colour]}, the third aim of the front." if is_coloured else ""
    return Plot(
        *words,
        "Right and up is better; nothing measured beats a config on the front in all that counts."
        + third,
        {
            "data": [trace for trace in traces if trace["x"]],
            "layout": layout(
                xaxis=axis(MEASURES["sps"], rangemode="tozero"), yaxis=axis(MEASURES[y]), height=480
            ),
        },
    )


def by_dimension(study: StudyReading, dimension: str) -> Plot:
    """Return throughput and quality of every config over one of its numbers."""
    shown = _measured(study, "sps")
    if not shown:
        return Plot(dimension, dimension, "", missing=NO_RESULT)
    rated = [s for s in shown if s.quality_score is not None]
    traces = _over(shown, dimension, "sps", BLUE, "y")
    traces += _over(rated, dimension, "quality_score", ORANGE, "y2") if rated else []
    upper, lower = ([0.56, 1.0], [0.0, 0.46]) if rated else ([0.0, 1.0], [0.0, 0.0])
    labels = [str(value) for value in sorted({getattr(s.config, dimension) for s in shown})]
    drawn = layout(
        xaxis=axis(dimension, type="category", categoryarray=labels, anchor="y2" if rated else "y"),
        yaxis=axis(MEASURES["sps"], domain=upper, rangemode="tozero"),
        showlegend=False,
        height=380,
    )
    if rated:
        drawn["yaxis2"] = axis(MEASURES["quality_score"], domain=lower)
    missing = "" if rated else " Quality was not measured."
    return Plot(
        dimension,
        dimension,
        f"Each point is a config; the line joins the medians, over all other numbers.{missing}",
        {"data": traces, "layout": drawn},
    )


def memory(study: StudyReading) -> Plot:
    """Return predicted against measured peak memory."""
    words = ("memory", "Memory, predicted against measured")
    known = [r for r in study.records if r.predicted_memory_gb and r.peak_memory_gb]
    if not known:
        return Plot(*words, "", missing="no trial has both a prediction and a measured peak")
    pairs = [(float(r.predicted_memory_gb or 0), float(r.peak_memory_gb or 0)) for r in known]
    ends = [min(map(min, pairs)) / 1.3, max(map(max, pairs)) * 1.3]
    error = statistics.median(predicted / peak - 1 for predicted, peak in pairs)
    sources = ", ".join(sorted({r.memory_source for r in known if r.memory_source}))
    return Plot(
        *words,
        f"On the line a prediction was exact; the median one was off by {error:+.1%}. "
        f"Measured as: {sources or 'not recorded'}.",
        {
            "data": [
                line(ends, ends, "exact", GREY, dash="dot"),
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": "a measurement",
                    "x": [rounded(peak) for _, peak in pairs],
                    "y": [rounded(predicted) for predicted, _ in pairs],
                    "text": [f"trial {r.trial}: {hardware_of(r)}" for r in known],
                    "hovertemplate": "%{text}<br>measured %{x} GB<br>predicted %{y} GB"
                    "<extra></extra>",
                    "marker": {"size": 8, "color": BLUE, "opacity": 0.7},
                },
            ],
            "layout": layout(
                xaxis=axis("measured, GB", type="log"), yaxis=axis("predicted, GB", type="log")
            ),
        },
    )


def seconds(study: StudyReading) -> Plot:
    """Return where the seconds of all trials went."""
    words = ("seconds", "Where the device-seconds went")
    totals = phase_seconds(study.records)
    if not totals:
        return Plot(*words, "", missing="no trial has ended yet")
    total = sum(totals.values())
    names = [name.removesuffix("_s").replace("_", "-") for name in totals]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": names,
        "x": [rounded(value) for value in totals.values()],
        "text": [f"{value:,.0f} s, {value / total:.0%}" for value in totals.values()],
        "textposition": "auto",
        "insidetextfont": {"color": "#ffffff"},
        "hovertemplate": "%{y}: %{x} s<extra></extra>",
        "marker": {"color": [GREEN if name == "window" else GREY for name in names]},
    }
    drawn = layout(
        xaxis=axis("seconds"),
        yaxis=axis("", autorange="reversed", type="category"),
        height=110 + 36 * len(names),
    )
    caption = "Green is measured training; the rest is what it takes to measure it."
    return Plot(*words, caption, {"data": [bars], "layout": drawn})


def study_plots(study: StudyReading, chosen: Mapping[str, HardwareConfig]) -> list[Plot]:
    """Return the plots that need nothing but records."""
    return [
        pareto(study, chosen),
        *(by_dimension(study, dimension) for dimension in dimensions_of(study)),
        heat_map(study),
        memory(study),
        seconds(study),
    ]


def dimensions_of(study: StudyReading) -> tuple[str, ...]:
    """Return the four dimensions, and the learning rate where there are several."""
    return (*DIMENSIONS, *([LEARNING_RATE] if study.config.has_rates else []))


def _measured(study: StudyReading, *names: str) -> list[ConfigSummary]:
    return [
        s
        for s in study.summaries
        if s.status == "success" and all(getattr(s, name) is not None for name in names)
    ]


def _points(shown: Sequence[ConfigSummary], y: str, name: str, **marker: Any) -> Figure:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [rounded(s.sps) for s in shown],
        "y": [rounded(getattr(s, y)) for s in shown],
        "text": [described(s) for s in shown],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": marker,
    }


def _rings(
    shown: Sequence[ConfigSummary], y: str, name: str, symbol: str, size: int, colour: str
) -> Figure:
    width = {"width": 2.5, "color": colour}
    return _points(shown, y, name, symbol=symbol, size=size, color=colour, line=width)


def _over(
    shown: Sequence[ConfigSummary], dimension: str, measure: str, colour: str, yaxis: str
) -> list[Figure]:
    groups: dict[float, list[float]] = {}
    for summary in shown:
        groups.setdefault(getattr(summary.config, dimension), []).append(getattr(summary, measure))
    middles = {value: statistics.median(found) for value, found in sorted(groups.items())}
    middle = line([str(v) for v in middles], [rounded(m) for m in middles.values()], "", colour)
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [str(getattr(s.config, dimension)) for s in shown],
        "y": [rounded(getattr(s, measure)) for s in shown],
        "text": [described(s) for s in shown],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"size": 6, "color": colour, "opacity": 0.5},
        "yaxis": yaxis,
    }
    return [points, middle | {"yaxis": yaxis, "hoverinfo": "skip"}]
