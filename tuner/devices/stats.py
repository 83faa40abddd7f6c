"""Samples of a device reduced to one measuring window.

Apart from the monitor because it needs neither thread nor device: recorded samples are cut in the
same way as fresh ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo

MIN_SAMPLES = 3
POWER_SLACK = 2.0
"""A card may draw more than its limit for moments, but never twice as much."""
MIN_COVERAGE = 0.8
"""Share of the window that readings must cover to stand for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStats:
    """A device over one window; `None` where it was not measured.

    `util` is in percent of what `util_source` names, and `util_reason` says why it is absent.
    `num_samples` lie inside the window. `gpu_util`, `sm_clock_mhz`, `avg_temperature` (°C) are
    means of the samples; `sm_util`, `sm_occupancy`, `tensor_util`, `dram_util` (percent, GPM) and
    `other_device_percent`, the share of somebody else, are weighted by the time they describe.
    `power_w` is the rate of the energy counter where there is one, else a mean.
    `peak_memory_bytes` is the largest sample: the resident size on a CPU; on a GPU what NVML calls
    used, by everyone and with JAX's preallocated pool, so NOT the peak of the program.
    `throttle_reasons` is the union of the bits seen (`base.SLOWDOWN_REASONS`). `steal_percent` and
    `other_cpu_percent` are shares of the cores that the trial may use.
    """

    util: float | None
    util_reason: str | None
    util_source: str
    num_samples: int
    gpu_util: float | None = None
    sm_util: float | None = None
    sm_occupancy: float | None = None
    tensor_util: float | None = None
    dram_util: float | None = None
    sm_clock_mhz: float | None = None
    avg_temperature: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    peak_memory_bytes: int | None = None
    throttle_reasons: int | None = None
    steal_percent: float | None = None
    other_cpu_percent: float | None = None
    other_device_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """An interval of monotonic time, in seconds, both ends included."""

    start: float
    end: float

    def overlap(self, start: float, end: float) -> float:
        """Return how many seconds of `start` to `end` lie inside."""
        return max(0.0, min(end, self.end) - max(start, self.start))

    def is_covered_by(self, seconds: float) -> bool:
        """Whether readings over `seconds` of the window may stand for all of it."""
        return 0.0 < seconds >= MIN_COVERAGE * (self.end - self.start)


Field = Callable[[DeviceSample], float | None]


def reduce_window(
    samples: Sequence[DeviceSample],
    window: Window,
    *,
    info: DeviceInfo,
    util_source: str,
    failure: str | None = None,
) -> DeviceStats:
    """Reduce `samples`, in the order of their times, to what they say about `window`.

    On a CPU, `util` is the running total of CPU time between the window's edges, interpolated;
    under "gpm", where a sample describes the time since the one before, the mean weighted by that
    time; elsewhere the mean of the samples inside. Samples outside serve only to reach the edges.
    `failure`, why sampling ended early, is named where it left too little to go by.
    """
    inside = [s for s in samples if window.start <= s.t <= window.end]
    util, reason = _utilisation(samples, window, info, util_source)
    if reason is not None and failure is not None:
        reason = f"{reason} ({failure})"
    most_w = None if info.power_limit_w is None else POWER_SLACK * info.power_limit_w
    energy_rate = _rate_of_total(samples, window, lambda s: s.energy_j, most=most_w)
    power = energy_rate if energy_rate is not None else _mean(inside, lambda s: s.power_w)
    throttle = [s.throttle_reasons for s in inside if s.throttle_reasons is not None]
    return DeviceStats(
        util=util,
        util_reason=reason,
        util_source=util_source,
        num_samples=len(inside),
        gpu_util=_if_covered(window, *_mean_of_moments(samples, window, lambda s: s.gpu_util)),
        sm_util=_if_covered(window, *_mean_of_rates(samples, window, lambda s: s.sm_util)),
        sm_occupancy=_if_covered(
            window, *_mean_of_rates(samples, window, lambda s: s.sm_occupancy)
        ),
        tensor_util=_if_covered(window, *_mean_of_rates(samples, window, lambda s: s.tensor_util)),
        dram_util=_if_covered(window, *_mean_of_rates(samples, window, lambda s: s.dram_util)),
        sm_clock_mhz=_mean(inside, lambda s: s.sm_clock_mhz),
        avg_temperature=_mean(inside, lambda s: s.temperature_c),
        power_w=power,
        energy_j=None if energy_rate is None else energy_rate * (window.end - window.start),
        peak_memory_bytes=max(
            (m for s in inside if (m := s.memory_bytes) is not None), default=None
        ),
        throttle_reasons=reduce(or_, throttle) if throttle else None,
        steal_percent=_if_covered(
            window, *_mean_of_rates(samples, window, lambda s: s.steal_percent)
        ),
        other_cpu_percent=_if_covered(
            window, *_mean_of_rates(samples, window, lambda s: s.other_cpu_percent)
        ),
        other_device_percent=_if_covered(
            window, *_mean_of_rates(samples, window, lambda s: s.other_device_percent)
        ),
    )


def _utilisation(
    samples: Sequence[DeviceSample], window: Window, info: DeviceInfo, util_source: str
) -> tuple[float | None, str | None]:
    """Return the utilisation in percent, or `None` and the reason."""
    inside = [s for s in samples if window.start <= s.t <= window.end]
    if len(inside) < MIN_SAMPLES:
        return None, (
            f"utilisation must rest on at least {MIN_SAMPLES} samples, but got {len(inside)} in "
            f"{window.end - window.start:.2f} s; measure longer or sample more often"
        )
    if info.kind == "cpu":
        busy = _rate_of_total(samples, window, lambda s: s.cpu_s)
        if busy is not None:
            return min(100.0, 100.0 * busy / info.cores), None
    known = [s for s in samples if s.util is not None]
    count = sum(window.start <= s.t <= window.end for s in known)
    if not known:
        return None, info.no_util_reason or "the device reports no utilisation"
    mean_of = _mean_of_rates if util_source == "gpm" else _mean_of_moments
    mean, covered = mean_of(samples, window, lambda s: s.util)
    if count < MIN_SAMPLES or not window.is_covered_by(covered):
        return None, (
            f"readings must cover {MIN_COVERAGE:.0%} of the window, but got {count} over "
            f"{covered:.2f} of {window.end - window.start:.2f} s; keep the monitor running from "
            "before the window to after it"
        )
    return mean, None


def _rate_of_total(
    samples: Sequence[DeviceSample], window: Window, total: Field, *, most: float | None = None
) -> float | None:
    """Return how fast a running total grew over the window, per second.

    Between two samples the total is taken as linear, so a window's edge may fall anywhere. Where
    it fell back (the counter wrapped, the driver was loaded anew) or grew faster than `most` a
    second, that interval is left out and the rest stands for it. `None` where too little of the
    window is covered.
    """
    known = [(s.t, value) for s in samples if (value := total(s)) is not None]
    grown = covered = 0.0
    for (t0, before), (t1, after) in pairwise(known):
        overlap = window.overlap(t0, t1)
        is_sound = after >= before and (most is None or after - before <= most * (t1 - t0))
        if overlap > 0 and is_sound:
            grown += (after - before) * overlap / (t1 - t0)
            covered += overlap
    return grown / covered if window.is_covered_by(covered) else None


def _mean(samples: Sequence[DeviceSample], value: Field) -> float | None:
    known = [v for s in samples if (v := value(s)) is not None]
    return sum(known) / len(known) if known else None


def _mean_of_moments(
    samples: Sequence[DeviceSample], window: Window, value: Field
) -> tuple[float | None, float]:
    """Return the mean of a field that describes its moment, and the seconds it stands for.

    These are the times between neighbouring samples that both know it.
    """
    inside = [s for s in samples if window.start <= s.t <= window.end]
    covered = sum(
        window.overlap(before.t, after.t)
        for before, after in pairwise(samples)
        if value(before) is not None and value(after) is not None
    )
    return _mean(inside, value), covered


def _mean_of_rates(
    samples: Sequence[DeviceSample], window: Window, rate: Field
) -> tuple[float | None, float]:
    """Return the mean of a field that describes the time since the sample before, by overlap.

    Also returns how many seconds of the window it covers.
    """
    weighted = covered = 0.0
    for before, after in pairwise(samples):
        value, overlap = rate(after), window.overlap(before.t, after.t)
        if value is not None:
            weighted += value * overlap
            covered += overlap
    return (weighted / covered if covered > 0 else None), covered


def _if_covered(window: Window, mean: float | None, covered: float) -> float | None:
    return mean if window.is_covered_by(covered) else None
