"""From the events of one trial and the samples of its device to a measurement.

Apart from the scores because what was measured stands for itself: the same measurement is judged
again when the references change, as they do while a study is being calibrated.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from storage.records import CurvePoint, DeviceSample, TrialRecord
from tuner.devices.base import SLOWDOWN_REASONS
from tuner.devices.stats import DeviceStats
from tuner.isolation import TrialRun
from tuner.outcome import Outcome
from tuner.protocol import Event
from tuner.space import HardwareConfig
from tuner.throughput import Throughput, measure_throughput

FOREIGN_LOAD_PERCENT = 10.0
"""Steal or load of other processes above which a measurement is contaminated."""

MUST_BE_FINITE = ("policy_loss", "value_loss", "entropy", "approx_kl", "grad_norm")
"""Metrics that every block has: where one is None, it was not finite (JSON has no name for it)."""

_CURVE_METRICS = ("entropy", "policy_loss", "value_loss", "approx_kl", "explained_variance")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the final policy returned, and whether training had changed it at all."""

    mean_return: float
    return_se: float
    params_changed: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """One trial as it was measured; `record` has no scores yet.

    `facts` is what the child told of its device and environment, empty if it never came so far.
    """

    record: TrialRecord
    curve: tuple[CurvePoint, ...]
    samples: tuple[DeviceSample, ...]
    throughput: Throughput | None
    evaluation: Evaluation | None
    outcome: Outcome
    facts: dict[str, Any]


def window_of(run: TrialRun) -> tuple[float, float] | None:
    """Return the measuring window: from `warm` to the end of the last block, monotonic seconds."""
    warm, blocks = run.first("warm"), run.blocks()
    return (warm.t, blocks[-1].t) if warm is not None and blocks else None


def measure(
    run: TrialRun,
    *,
    config: HardwareConfig,
    trial: int,
    replicate: int,
    stats: DeviceStats | None,
    samples: Sequence[DeviceSample],
    is_gpu: bool,
) -> Measurement:
    """Reduce a run to a measurement.

    Args:
        run: the trial's events and outcome.
        config: what was run.
        trial: Optuna's number.
        replicate: 0 for the trial itself.
        stats: the device over the window, None where there was no window.
        samples: the device's samples, kept for the time line.
        is_gpu: whether the device is a GPU, which NVML's utilisation is then said of.
    """
    curve = _curve(run.blocks())
    throughput = measure_throughput(
        [(event.data["block_env_steps"], event.data["seconds"]) for event in run.blocks()]
    )
    known: dict[str, Any] = {
        **config.as_dict(),
        **_compiled(run.first("compiled")),
        **_measured(run),
        **_learned(curve),
    }
    record = TrialRecord(
        trial=trial,
        replicate=replicate,
        status=run.outcome.status,
        reason=run.outcome.reason or _recompiled(run.first("measured")),
        sps=throughput.sps if throughput else None,
        duration=run.ended - run.requested,
        phases=_phases(run),
        **known,
    )
    if stats is not None:
        record = replace(record, **_device(stats, is_gpu=is_gpu))
    started, evaluation = run.first("started"), _evaluation(run.first("done"))
    if evaluation is not None:
        record = replace(record, mean_return=evaluation.mean_return)
    return Measurement(
        record=record,
        curve=curve,
        samples=tuple(samples),
        throughput=throughput,
        evaluation=evaluation,
        outcome=run.outcome,
        facts=dict(started.data) if started else {},
    )


def seconds_to(curve: Sequence[CurvePoint], target_return: float | None) -> float | None:
    """Return the training seconds after which a block first returned `target_return`."""
    learning = [point for point in curve if point.learning]
    if target_return is None:
        return None
    for point, seconds in zip(learning, accumulate(p.seconds for p in learning), strict=True):
        reached = point.metrics.get("mean_return")
        if reached is not None and reached >= target_return:
            return seconds
    return None


def last_quarter(curve: Sequence[CurvePoint], metric: str) -> list[float]:
    """Return the known values of a metric over the last quarter of the learning blocks."""
    learning = [point for point in curve if point.learning]
    tail = learning[-max(1, len(learning) // 4) :]
    return [value for p in tail if (value := p.metrics.get(metric)) is not None]


def _curve(blocks: Sequence[Event]) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            block=event.data["block"],
            env_steps=event.data["env_steps"],
            seconds=event.data["seconds"],
            metrics=event.data["metrics"],
            learning=event.data["learning"],
        )
        for event in blocks
    )


def _learned(curve: Sequence[CurvePoint]) -> dict[str, float | None]:
    tails = {name: last_quarter(curve, name) for name in _CURVE_METRICS}
    return {name: statistics.fmean(tail) if tail else None for name, tail in tails.items()}


def _compiled(event: Event | None) -> dict[str, Any]:
    if event is None:
        return {}
    predicted, limit = event.data["predicted_bytes"], event.data["limit_bytes"]
    return {
        "predicted_memory_gb": None if predicted is None else predicted / 1e9,
        "memory_limit_gb": None if limit is None else limit / 1e9,
        "compile_s": event.data["lower_s"] + event.data["compile_s"],
        "compile_cached": event.data["cached"],
    }


def _measured(run: TrialRun) -> dict[str, Any]:
    event, window = run.first("measured"), window_of(run)
    if event is None or window is None:
        return {"window_s": None if window is None else window[1] - window[0]}
    peak, env_steps = event.data["peak_bytes"], event.data["env_steps"]
    blocks = run.blocks()
    return {
        "peak_memory_gb": None if peak is None else peak / 1e9,
        "memory_source": event.data["memory_source"],
        "env_steps": env_steps,
        "end_to_end_sps": blocks[-1].data["env_steps"] / (window[1] - run.requested),
        "window_s": window[1] - window[0],
    }


def _phases(run: TrialRun) -> dict[str, float]:
    """Return the seconds from the request on by what they went to."""
    marks = [("start", "started"), ("compile", "compiled"), ("warm_up", "warm")]
    phases: dict[str, float] = {}
    before = run.requested
    for name, end in marks:
        event = run.first(end)
        if event is None:
            break
        phases[name], before = max(0.0, event.t - before), max(before, event.t)
    if window := window_of(run):
        phases["window"], before = window[1] - before, window[1]
    rest = "evaluate" if run.first("measured") is not None else "lost"
    phases[rest] = run.ended - before
    return phases


def _recompiled(measured: Event | None) -> str | None:
    """Say that something was compiled inside the window, which no sound training does."""
    if measured is None or not measured.data["recompiles"]:
        return None
    return f"{measured.data['recompiles']} programs were compiled inside the measuring window"


def _evaluation(done: Event | None) -> Evaluation | None:
    if done is None or done.data["stopped"] or done.data["mean_return"] is None:
        return None
    return Evaluation(
        mean_return=done.data["mean_return"],
        return_se=done.data["return_se"] or 0.0,
        params_changed=done.data["params_changed"],
    )


def _device(stats: DeviceStats, *, is_gpu: bool) -> dict[str, Any]:
    return {
        "device_util": stats.util,
        "util_source": stats.util_source,
        "gpu_util": stats.util if is_gpu and stats.util_source == "nvml" else None,
        "sm_util": stats.sm_util,
        "dram_util": stats.dram_util,
        "avg_temperature": stats.avg_temperature,
        "power_w": stats.power_w,
        "energy_j": stats.energy_j,
        "contaminated": _contamination(stats),
    }


def _contamination(stats: DeviceStats) -> str | None:
    """Say what else used the machine or slowed the device during the window."""
    if (stats.throttle_reasons or 0) & SLOWDOWN_REASONS:
        return f"the device slowed itself down (reasons {stats.throttle_reasons:#x})"
    for what, share in (
        ("steal", stats.steal_percent),
        ("load of other processes", stats.other_cpu_percent),
    ):
        if share is not None and share > FOREIGN_LOAD_PERCENT:
            return f"{what} of {share:.0f} % of the host"
    return None
