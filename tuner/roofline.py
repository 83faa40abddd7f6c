"""What bounds a trial: its work and time held against what the device reaches.

Apart from the measurement because it judges: from the work of an update (`tuner.child.cost`), the
time it took and the peaks (`tuner.peaks`) to four fractions and the name of the largest. The idea
is the roofline of Williams, Waterman and Patterson (CACM 52(4), 2009), with two roofs more: small
programs are bound by how fast kernels start, and by the host between them.
"""

from dataclasses import asdict, dataclass
from typing import Any

from tuner.peaks import Peaks

EXPLAINS = 0.2
"""A largest fraction below this explains no trial: four fifths of the time went elsewhere."""
SETTLES = 0.5
"""A fraction of at least this names the bound even where another could not be measured."""
BUSY_PERCENT = 90.0
IDLE_PERCENT = 30.0
IDLE_FRACTION = 0.2
UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one update takes: operations, bytes of memory traffic, kernels."""

    flops: float
    bytes: float
    kernels: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """The measuring window: its updates, the seconds inside blocks, and from end to end."""

    updates: float
    blocks_s: float
    window_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Rates and fractions of a trial, by the names of the trial record; `None` is not measured.

    `compute_fraction` and `memory_fraction` are the achieved rates over the peaks,
    `launch_fraction` is kernels × launch time over the time of the blocks, `host_fraction` the
    share of the window outside blocks. They overlap on a device that computes while it loads, so
    they need not add up to 1.

    A fraction above 1 is shown as measured: the work is a model and the peak a measurement. For
    memory it means that caches served what the model sends to memory, which is usual on a CPU with
    small batches; for launch, that kernels were merged; for compute, that the peak was measured
    while others used the machine.

    `bound` is `compute`, `memory`, `launch` or `host`, the largest of the four; `unexplained`
    where none reaches `EXPLAINS`; `None` where one is missing and none of the others settles it.
    """

    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    compute_fraction: float | None = None
    memory_fraction: float | None = None
    launch_fraction: float | None = None
    host_fraction: float | None = None
    bound: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for the trial record."""
        return asdict(self)


def bound(work: Work | None, peaks: Peaks | None, *, time: Time | None, dtype: str) -> Roofline:
    """Hold a trial's work and time against the peaks.

    Args:
        work: of one update; None where it was not counted.
        peaks: of the device; None where they were not measured.
        time: of the window; None where there was none.
        dtype: what the networks compute in, `float32` or `bfloat16`.
    """
    if time is None or time.updates <= 0 or time.blocks_s <= 0 or time.window_s <= 0:
        return Roofline()
    # Two clocks are read: rounding must not make the time between blocks negative.
    host = max(0.0, 1 - time.blocks_s / time.window_s)
    if work is None:
        return Roofline(host_fraction=host, bound=name_of({"host": host}, complete=False))
    peaks = peaks or Peaks()
    update_s = time.blocks_s / time.updates
    flops_per_s, bytes_per_s = work.flops / update_s, work.bytes / update_s
    compute = _over(flops_per_s, peaks.flops_per_s(dtype))
    memory = _over(bytes_per_s, peaks.copy_bytes_per_s)
    launch = None if peaks.launch_s is None else work.kernels * peaks.launch_s / update_s
    fractions = {"compute": compute, "memory": memory, "launch": launch, "host": host}
    known = {name: value for name, value in fractions.items() if value is not None}
    return Roofline(
        flops_per_s=flops_per_s,
        bytes_per_s=bytes_per_s,
        compute_fraction=compute,
        memory_fraction=memory,
        launch_fraction=launch,
        host_fraction=host,
        bound=name_of(known, complete=len(known) == len(fractions)),
    )


def name_of(known: dict[str, float], *, complete: bool) -> str | None:
    """Return the name of the largest fraction, if it explains anything.

    Args:
        known: measured fractions by name; at least one.
        complete: whether all four were measured.
    """
    largest = max(known, key=lambda name: known[name])
    if not complete:
        return largest if known[largest] >= SETTLES else None
    return largest if known[largest] >= EXPLAINS else UNEXPLAINED


def busy_but_idle(
    gpu_util: float | None, *, sm_util: float | None, roofline: Roofline
) -> str | None:
    """Warn where NVML says busy and what is known of the work says idle; else None.

    NVML's figure is the share of time in which any kernel ran, however small. SM activity is
    believed first; where the device does not tell it, the fractions of compute and memory are.

    Args:
        gpu_util: NVML's utilisation, in percent.
        sm_util: activity of the multiprocessors, in percent.
        roofline: of the same trial.
    """
    if gpu_util is None or gpu_util <= BUSY_PERCENT:
        return None
    compute, memory = roofline.compute_fraction, roofline.memory_fraction
    if sm_util is not None:
        idle = f"its multiprocessors were active for {sm_util:.0f} %"
        is_idle = sm_util < IDLE_PERCENT
    elif compute is not None and memory is not None:
        idle = f"training reached {compute:.1%} of its arithmetic and {memory:.1%} of its memory"
        is_idle = max(compute, memory) < IDLE_FRACTION
    else:
        return None
    if not is_idle:
        return None
    return (
        f"NVML says {gpu_util:.0f} % busy, but {idle}: kernels follow each other without filling "
        "the device; try more environments or fewer minibatches"
    )


def _over(rate: float, peak: float | None) -> float | None:
    return None if peak is None else rate / peak
