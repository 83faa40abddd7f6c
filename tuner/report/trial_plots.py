"""The plots of single trials: how training went, and what the device did meanwhile.

Apart from those of a study because they need the series, which are read trial by trial.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.records import CurvePoint, DeviceSample, TrialRecord
from tuner.aggregate import hardware_of
from tuner.report.figures import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Figure,
    Plot,
    axis,
    layout,
    line,
    plain,
    rounded,
    thinned,
)
from tuner.report.reading import StudyReading

BYTES_PER_GB = 1e9
LANES: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "%",
        (
            ("util", "utilisation", BLUE),
            ("sm_util", "multiprocessors active", GREEN),
            ("dram_util", "memory traffic", PURPLE),
            ("other_cpu_percent", "other processes", ORANGE),
            ("steal_percent", "steal", RED),
        ),
    ),
    ("GB", (("memory_gb", "memory", GREEN),)),
    ("W", (("power_w", "power", ORANGE),)),
    ("°C", (("temperature_c", "temperature", RED),)),
)
"""What a time line shows, from top to bottom: unit, and series by field, name and colour."""
LANE_PIXELS = 150


def curves(
    study: StudyReading, shown: Mapping[str, tuple[TrialRecord, Sequence[CurvePoint]]]
) -> Plot:
    """Return the training returns of some measurements over env-steps.

    Args:
        study: whose references are drawn as well.
        shown: measurements with their curves, by what they are called.
    """
    words = ("curves", "Training curves")
    traces: list[Figure] = []
    for index, (name, (_, points)) in enumerate(shown.items()):
        told = [p for p in points if p.learning and p.metrics.get("mean_return") is not None]
        if told:
            told = thinned(told)
            x, y = [p.env_steps for p in told], [rounded(p.metrics["mean_return"]) for p in told]
            traces.append(line(x, y, plain(name), CYCLE[index % len(CYCLE)]))
    if not traces:
        return Plot(*words, "", missing="no trial has told a return in training")
    ends = [0, max(max(trace["x"]) for trace in traces)]
    references = study.references
    if references is not None:
        for name, level in (
            ("random policy", references.quality.random_return),
            ("best known", references.quality.best_return),
        ):
            if level is not None:
                traces.append(line(ends, [rounded(level)] * 2, name, GREY, dash="dot"))
    return Plot(
        *words,
        "Mean return in training, by block. Quality is judged by separate evaluations of the "
        "policy, since training returns favour few environments.",
        {
            "data": traces,
            "layout": layout(xaxis=axis("env-steps"), yaxis=axis("mean return"), height=460),
        },
    )


def returns(record: TrialRecord, points: Sequence[CurvePoint]) -> Plot:
    """Return one measurement's training: its return and its entropy over env-steps."""
    words = (f"returns_{record.trial}", "Training")
    learning = thinned([point for point in points if point.learning])
    series = {
        name: [rounded(point.metrics.get(name)) for point in learning]
        for name in ("mean_return", "entropy")
    }
    lanes = [
        (name.replace("_", " "), [(name.replace("_", " "), colour, values)])
        for (name, values), colour in zip(series.items(), (BLUE, ORANGE), strict=True)
        if any(value is not None for value in values)
    ]
    if not lanes:
        return Plot(*words, "", missing=_why_silent(record, "its training told no return"))
    return Plot(*words, "", _in_lanes([p.env_steps for p in learning], "env-steps", lanes))


def device_line(record: TrialRecord, samples: Sequence[DeviceSample]) -> Plot:
    """Return what the device did while a measurement ran, a lane for each unit."""
    words = (f"device_{record.trial}", "Device")
    taken = thinned(samples)
    lanes = [
        (unit, [(name, colour, s) for key, name, colour in kinds if (s := _series(taken, key))])
        for unit, kinds in LANES
    ]
    lanes = [(unit, found) for unit, found in lanes if found]
    if not lanes:
        why = record.util_reason or "its device was not read"
        return Plot(*words, "", missing=_why_silent(record, why))
    times = [rounded(sample.t - taken[0].t) for sample in taken]
    return Plot(*words, "", _in_lanes(times, "seconds", lanes, rangemode="tozero"))


def _in_lanes(
    x: Sequence[float | None],
    x_title: str,
    lanes: Sequence[tuple[str, Sequence[tuple[str, str, Sequence[float | None]]]]],
    **of_axes: Any,
) -> Figure:
    """Return a figure of lanes over one axis, from top to bottom.

    Args:
        x: where all series were read.
        x_title: what it is.
        lanes: the title of each lane and its series, by name, colour and values.
        of_axes: what all vertical axes have in common.
    """
    traces: list[Figure] = []
    drawn = layout(height=110 + LANE_PIXELS * len(lanes))
    for index, (title, series) in enumerate(lanes):
        number = "" if index == 0 else str(index + 1)
        top = 1 - index / len(lanes)
        bottom = top - 1 / len(lanes) + (0.06 if index + 1 < len(lanes) else 0.0)
        drawn[f"yaxis{number}"] = axis(title, domain=[bottom, top], **of_axes)
        traces += [
            line(x, values, name, colour) | {"yaxis": f"y{number}"}
            for name, colour, values in series
        ]
    drawn["xaxis"] = axis(x_title, anchor=f"y{len(lanes)}" if len(lanes) > 1 else "y")
    return {"data": traces, "layout": drawn}


def _series(samples: Sequence[DeviceSample], name: str) -> list[float | None] | None:
    """Return a field of all samples, None where none of them has it."""
    values: list[Any]
    if name == "memory_gb":
        values = [
            None if s.memory_bytes is None else s.memory_bytes / BYTES_PER_GB for s in samples
        ]
    else:
        values = [getattr(sample, name) for sample in samples]
    return [rounded(v) for v in values] if any(v is not None for v in values) else None


def _why_silent(record: TrialRecord, otherwise: str) -> str:
    if record.status == "success":
        return otherwise
    return (
        f"{hardware_of(record)} ended as {record.status}: {record.reason or 'no reason recorded'}"
    )
