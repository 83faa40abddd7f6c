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
from tuner.contamination import contamination
from tuner.devices.stats import DeviceStats
from tuner.isolation import TrialRun
from tuner.outcome import Outcome
from tuner.peaks import Peaks
from tuner.protocol import Event
from tuner.roofline import Roofline, Time, Work, bound
from tuner.space import HardwareConfig
from tuner.throughput import Throughput, measure_throughput

MUST_BE_FINITE = ("policy_loss", "value_loss", "entropy", "approx_kl", "grad_norm")
"""Metrics that every block has: where one is None, it was not finite (JSON has no name for it)."""

STOOD_STILL = "the machine was suspended, or this process was stopped,"
"""Why a measurement is contaminated that was not watched all the time."""

_CURVE_METRICS = ("entropy", "policy_loss", "value_loss", "approx_kl", "explained_variance")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a trained policy returned, and whether training had changed it at all.

    `mean_return` and `return_se` are the final policy's. `earlier` holds what it returned at each
    of `MILESTONES`, None where that is no number; it is empty where it was not evaluated there.
    """

    mean_return: float
    return_se: float
    params_changed: bool | None
    earlier: tuple[float | None, ...] = ()

    def learning_return(self, random_return: float) -> float:
        """Return the mean over the milestones and the end: the height of the learning curve.

        A policy whose return is unknown counts as the random one.
        """
        earlier = [random_return if value is None else value for value in self.earlier]
        return statistics.fmean((*earlier, self.mean_return))


@dataclass(frozen=True, slots=True)
class EarlierVerdict:
    """How an earlier training was judged, which counts in place of an evaluation, and whence."""

    quality_score: float | None
    acceptable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """One trial as it was measured; `record` has no scores yet.

    `kept` is set where the trial was timed only.
    """

    record: TrialRecord
    curve: tuple[CurvePoint, ...]
    samples: tuple[DeviceSample, ...]
    throughput: Throughput | None
    evaluation: Evaluation | None
    outcome: Outcome
    kept: EarlierVerdict | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """What the monitor saw of a trial: the window's figures, all samples, its own cost.

    `own_percent` is the CPU time of the monitor as a share of the time that it watched.
    """

    stats: DeviceStats
    samples: tuple[DeviceSample, ...] = ()
    own_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Roof:
    """What a trial's work is held against: the device's peaks, for networks of type `dtype`."""

    peaks: Peaks | None
    dtype: str


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
    watch: Watch | None,
    roof: Roof,
) -> Measurement:
    """Reduce a run to a measurement.

    Args:
        run: the trial's events and outcome.
        config: what was run.
        trial: Optuna's number.
        replicate: 0 for the trial itself.
        watch: what was seen of the device, None where it was not watched or had no window.
        roof: what bounds the trial is judged by.
    """
    curve = _curve(run.blocks())
    throughput = measure_throughput(
        [(event.data["block_env_steps"], event.data["seconds"]) for event in run.blocks()]
    )
    known: dict[str, Any] = {
        **config.params(),
        **_compiled(run.first("compiled")),
        **_measured(run),
        **_learned(curve),
        **_bound(run, roof, config).as_dict(),
    }
    record = TrialRecord(
        trial=trial,
        replicate=replicate,
        status=run.outcome.status,
        reason=run.outcome.reason or _recompiled(run.first("measured")),
        sps=throughput.sps if throughput else None,
        steady_from_block=throughput.steady_from_block if throughput else None,
        drift=throughput.drift if throughput else None,
        duration=run.ended - run.requested,
        phases=_phases(run),
        **known,
    )
    if watch is not None:
        record = replace(record, **_device(watch))
        record = replace(record, joules_per_msteps=joules_per_msteps(record))
    if (unwatched := _unwatched(run)) is not None:
        record = replace(record, contaminated=unwatched)
    evaluation = _evaluation(run.first("done"))
    if evaluation is not None:
        record = replace(record, mean_return=evaluation.mean_return)
    return Measurement(
        record=record,
        curve=curve,
        samples=watch.samples if watch is not None else (),
        throughput=throughput,
        evaluation=evaluation,
        outcome=run.outcome,
    )


def _unwatched(run: TrialRun) -> str | None:
    """Say for how long nobody watched the measuring window, because this process did not run."""
    window = window_of(run)
    if window is None:
        return None
    overlapping = [s for s in run.standstills if s.start < window[1] and s.end > window[0]]
    if not overlapping:
        return None
    return f"{STOOD_STILL} for {sum(s.seconds for s in overlapping):.0f} s"


def joules_per_msteps(record: TrialRecord) -> float | None:
    """Return the energy for a million env-steps, all blocks of the window being counted."""
    if record.energy_j is None or not record.window_env_steps:
        return None
    return record.energy_j / record.window_env_steps * 1e6


def memory_error(record: TrialRecord) -> float | None:
    """Return predicted over measured peak memory, less one; `None` unless both are known."""
    if record.predicted_memory_gb is None or not record.peak_memory_gb:
        return None
    return record.predicted_memory_gb / record.peak_memory_gb - 1


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
            threads=event.data["threads"],
            held_bytes=event.data["held_bytes"],
            resident_bytes=event.data["resident_bytes"],
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
    window_env_steps = run.blocks()[-1].data["env_steps"]
    return {
        "peak_memory_gb": None if peak is None else peak / 1e9,
        "memory_source": event.data["memory_source"],
        "env_steps": env_steps,
        "recompiles": event.data["recompiles"],
        "probe": event.data["probe"],
        "end_to_end_sps": window_env_steps / (window[1] - run.requested),
        "window_s": window[1] - window[0],
        "window_env_steps": window_env_steps,
    }


def _bound(run: TrialRun, roof: Roof, config: HardwareConfig) -> Roofline:
    compiled, window, blocks = run.first("compiled"), window_of(run), run.blocks()
    if compiled is None or window is None:
        return Roofline()
    work = Work(**{name: compiled.data[name] for name in ("flops", "bytes", "kernels")})
    return bound(
        None if compiled.data["work_is_lower_bound"] else work,
        roof.peaks,
        time=Time(
            updates=blocks[-1].data["env_steps"] / config.batch_size,
            blocks_s=sum(block.data["seconds"] for block in blocks),
            window_s=window[1] - window[0],
        ),
        dtype=roof.dtype,
    )


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
    measured = run.first("measured")
    if measured is not None and measured.data["probe"] is not None:
        phases["probe"], before = measured.t - before, measured.t
    rest = "evaluate" if measured is not None else "lost"
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
        earlier=tuple(done.data.get("earlier", ())),
    )


def _device(watch: Watch) -> dict[str, Any]:
    stats = watch.stats
    return {
        "monitor_percent": watch.own_percent,
        "device_util": stats.util,
        "util_source": stats.util_source,
        "util_reason": stats.util_reason,
        "gpu_util": stats.gpu_util,
        "sm_util": stats.sm_util,
        "sm_occupancy": stats.sm_occupancy,
        "tensor_util": stats.tensor_util,
        "dram_util": stats.dram_util,
        "sm_clock_mhz": stats.sm_clock_mhz,
        "avg_temperature": stats.avg_temperature,
        "power_w": stats.power_w,
        "energy_j": stats.energy_j,
        "throttle_reasons": stats.throttle_reasons,
        "steal_percent": stats.steal_percent,
        "other_cpu_percent": stats.other_cpu_percent,
        "other_device_percent": stats.other_device_percent,
        "contaminated": contamination(stats),
    }
