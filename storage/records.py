"""What is remembered of one measurement: the record, its training curve and its device samples.

Plain data without a database, so that whoever fills or reads a record needs no SQLAlchemy.
The fields of `TrialRecord` are the columns of `trials.csv` (see `storage.csv_file`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

STATUSES = (
    "success",
    "predicted_oom",
    "oom",
    "diverged",
    "timeout",
    "crashed",
    "pruned",
    "interrupted",
)

INFEASIBLE_STATUSES = frozenset({"predicted_oom", "oom", "diverged", "timeout"})
"""Those that are the config's own fault; `tuner.outcome` has a class for each status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One measurement of one config; `None` where something was not measured.

    GB are 10⁹ bytes, utilisation is in percent, temperatures in °C, durations in seconds,
    `energy_j` over the measuring window, `sps` in env-steps per second. Fractions are of what the
    device was measured to reach (`tuner.roofline`); `bound` names the largest of them. `drift` is
    the relative change of the rate over the blocks that count, those from `steady_from_block` on.
    `monitor_percent` is the CPU time of the device's monitor as a share of the time it watched.
    """

    trial: int
    replicate: int
    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int
    status: str
    reason: str | None = None
    device_util: float | None = None
    util_source: str | None = None
    gpu_util: float | None = None
    sm_util: float | None = None
    dram_util: float | None = None
    peak_memory_gb: float | None = None
    predicted_memory_gb: float | None = None
    memory_limit_gb: float | None = None
    memory_source: str | None = None
    avg_temperature: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    mean_return: float | None = None
    entropy: float | None = None
    policy_loss: float | None = None
    value_loss: float | None = None
    approx_kl: float | None = None
    explained_variance: float | None = None
    sps: float | None = None
    sps_ci95: tuple[float, float] | None = None
    end_to_end_sps: float | None = None
    compile_s: float | None = None
    compile_cached: bool | None = None
    window_s: float | None = None
    duration: float | None = None
    env_steps: int | None = None
    seconds_to_target: float | None = None
    gpu_score: float | None = None
    quality_score: float | None = None
    sps_score: float | None = None
    final_score: float | None = None
    quality_acceptable: bool | None = None
    quality_reason: str | None = None
    contaminated: str | None = None
    util_reason: str | None = None
    sm_occupancy: float | None = None
    tensor_util: float | None = None
    sm_clock_mhz: float | None = None
    throttle_reasons: int | None = None
    steal_percent: float | None = None
    other_cpu_percent: float | None = None
    other_device_percent: float | None = None
    window_env_steps: int | None = None
    joules_per_msteps: float | None = None
    recompiles: int | None = None
    monitor_percent: float | None = None
    steady_from_block: int | None = None
    drift: float | None = None
    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    compute_fraction: float | None = None
    memory_fraction: float | None = None
    launch_fraction: float | None = None
    host_fraction: float | None = None
    bound: str | None = None
    probe: dict[str, float] | None = None
    """What the device reached right after the window: `matmul_flops_per_s`, `copy_bytes_per_s`."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds from request to `done` by what they went to; `window_s` is one of them."""
    goal_score: float | None = None
    """What the search maximises under `--goal time-to-return`, in [0, 1]; else `final_score` is."""
    learning_rate: float | None = None
    """Which of the study's several it trained with, before `lr_scaling`; None where it has one."""

    learning_return: float | None = None
    """Mean of what the policy returned at milestones of the budget and at its end, where it was
    evaluated there; else `mean_return`, which is the final policy's."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


RECORD_FIELDS = tuple(f.name for f in fields(TrialRecord))


def record_from_dict(values: Mapping[str, Any]) -> TrialRecord:
    """Return the record whose fields were stored as JSON.

    Half of an interval, or one that had an infinite end, is none.
    """
    interval = values.get("sps_ci95")
    if interval is not None:
        interval = None if None in interval else tuple(interval)
    return TrialRecord(**{**values, "sps_ci95": interval})


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Training metrics reduced over one timed block.

    `env_steps` counts from the start of the measuring window, `seconds` is this block's duration.
    `learning` is false for blocks run only to narrow the throughput interval. `threads` and
    `resident_bytes` of the trial's process, and the `held_bytes` that its allocator has of an
    accelerator's memory, are those at the end of the block.
    """

    block: int
    env_steps: int
    seconds: float
    metrics: dict[str, float | None]
    learning: bool = True
    threads: int | None = None
    held_bytes: int | None = None
    resident_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSample:
    """One reading of a device at monotonic time `t` (seconds); `None` where it tells nothing.

    `util` in percent of what `util_source` of the device names, memory in bytes. `cpu_s` (CPU
    seconds used by the watched process so far) and `energy_j` are running totals. `gpu_util` is
    NVML's figure, `sm_util`, `sm_occupancy`, `tensor_util` and `dram_util` GPM's, in percent since
    the sample before; `other_device_percent` is the largest share of the device's multiprocessors
    that a process of somebody else takes.
    """

    t: float
    util: float | None = None
    cpu_s: float | None = None
    memory_bytes: int | None = None
    gpu_util: float | None = None
    sm_util: float | None = None
    sm_occupancy: float | None = None
    tensor_util: float | None = None
    dram_util: float | None = None
    sm_clock_mhz: float | None = None
    other_device_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    throttle_reasons: int | None = None
    other_cpu_percent: float | None = None
    steal_percent: float | None = None
