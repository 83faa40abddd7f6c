"""Whether what a profile promises still holds, judged from new measurements of its workload.

Apart from `validate`, which makes these measurements, because the verdict is arithmetic: it can be
read, and tested, without a machine.

A verdict is `holds`, `drifted`, or `unclear` where the machine is too noisy to tell the two apart;
what either side did not measure is `unmeasured` and decides nothing.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from storage.profile import Profile
from storage.records import CurvePoint, TrialRecord
from tuner.contamination import is_noisy
from tuner.throughput import student_t

Verdict = Literal["holds", "drifted", "unclear", "unmeasured"]

WIDEST = 0.5
"""Relative half-width of the SPS ratio beyond which even a good ratio proves nothing."""
MEMORY_SLACK_GB = 0.032
"""Pages of libraries and thread stacks that come with a process and not with its program."""
UTIL_POINTS = 10.0
"""Percentage points that utilisation may fall, whatever the tolerance."""
GROWTH_SHARE, GROWTH_BYTES = 0.02, 16_000_000
"""Growth over the second half of a soak that is a leak; the larger of the two."""
MORE_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise, what was found, and what that means; numbers in `unit`."""

    what: str
    unit: str
    expected: float | None
    measured: float | None
    verdict: Verdict
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ratio:
    """New over promised SPS, with the bounds that both spreads leave (95 %)."""

    value: float
    low: float
    high: float


def check_throughput(profile: Profile, records: Sequence[TrialRecord], tolerance: float) -> Check:
    """Judge the SPS of fresh processes, by itself and relative to the probe beside each.

    It holds down to `1 − tolerance` of what was promised. Below that it has drifted only if the
    spreads of both sides cannot explain it and the device itself, by the probe, is not slower too.
    """
    rates = [record.sps for record in records if record.sps is not None]
    expected = profile.expected_sps
    if expected is None or len(rates) < 2:
        return _unmeasured("throughput", "env-steps/s", expected, "too few measurements")
    ratio = _ratio(rates, expected, _promised_spread(profile))
    relative = _relative_ratio(profile, records)
    words = f"{ratio.value:.0%} of what was promised ({ratio.low:.0%}–{ratio.high:.0%})"
    if relative is not None:
        words += f", {relative:.0%} relative to the probe beside it"

    def verdict(verdict: Verdict, reason: str) -> Check:
        return Check(
            what="throughput",
            unit="env-steps/s",
            expected=expected,
            measured=statistics.fmean(rates),
            verdict=verdict,
            reason=reason,
        )

    if ratio.value >= 1 - tolerance:
        if ratio.high - ratio.value > WIDEST:
            return verdict("unclear", f"{words}: the spread is too wide to tell")
        return verdict("holds", words)
    if ratio.high >= 1:
        return verdict("unclear", f"{words}: the spread leaves it open")
    if relative is not None and relative >= 1 - tolerance:
        return verdict("unclear", f"{words}: the machine itself is slower than it was")
    if relative is None and is_noisy(records):
        return verdict("unclear", f"{words}: most measurements were disturbed")
    return verdict("drifted", words)


def check_memory(profile: Profile, records: Sequence[TrialRecord], tolerance: float) -> Check:
    """Judge the highest peak: more than promised has drifted, less has not."""
    peaks = [record.peak_memory_gb for record in records if record.peak_memory_gb is not None]
    expected = profile.expected_memory_gb
    if expected is None or not peaks:
        return _unmeasured("memory", "GB", expected, "no peak is known")
    peak = max(peaks)
    most = expected * (1 + tolerance) + MEMORY_SLACK_GB
    return Check(
        what="memory",
        unit="GB",
        expected=expected,
        measured=peak,
        verdict="holds" if peak <= most else "drifted",
        reason=f"peak of {peak:.3f} GB, at most {most:.3f} GB allowed",
    )


def check_utilisation(profile: Profile, records: Sequence[TrialRecord], tolerance: float) -> Check:
    """Judge the mean utilisation, in points; a disturbed machine explains a fall."""
    source = profile.util_source
    utils = [
        r.device_util for r in records if r.device_util is not None and r.util_source == source
    ]
    expected = profile.expected_device_util
    if expected is None or not utils:
        return _unmeasured("utilisation", "%", expected, f"not measured by {source} now")
    mean = statistics.fmean(utils)
    fallen = expected - mean > max(UTIL_POINTS, 100 * tolerance)
    verdict: Verdict = "holds"
    if fallen:
        verdict = "unclear" if is_noisy(records) else "drifted"
    return Check(
        what="utilisation",
        unit="%",
        expected=expected,
        measured=mean,
        verdict=verdict,
        reason=f"{mean - expected:+.0f} points, by {source}",
    )


def check_quality(profile: Profile, scores: Sequence[float], tolerance: float) -> Check:
    """Judge the mean quality over seeds: below `1 − tolerance` by more than both spreads."""
    expected = profile.quality_score
    if expected is None or not scores:
        return _unmeasured("quality", "", expected, "quality was not measured")
    mean = statistics.fmean(scores)
    then = float(profile.measured.get("quality_sd") or 0.0)
    replicates = int(profile.measured.get("replicates") or 1)
    now = statistics.stdev(scores) if len(scores) > 1 else then
    spread = 2 * math.hypot(then / math.sqrt(replicates), now / math.sqrt(len(scores)))
    fallen = mean < expected - max(tolerance * expected, spread)
    return Check(
        what="quality",
        unit="",
        expected=expected,
        measured=mean,
        verdict="drifted" if fallen else "holds",
        reason=f"{mean - expected:+.2f}, the seeds' spread being ±{spread:.2f}",
    )


def check_flat(curve: Sequence[CurvePoint]) -> list[Check]:
    """Judge whether memory and threads stay flat over a soak: its last quarter to its second."""
    checks = []
    held = [point.held_bytes for point in curve if point.held_bytes is not None]
    if len(held) >= 8:
        before, after = _quarters(held)
        most = max(GROWTH_SHARE * before, GROWTH_BYTES)
        checks.append(
            _flat("memory over the soak", "GB", (before / 1e9, after / 1e9), most / 1e9, ".3f")
        )
    threads = [point.threads for point in curve if point.threads is not None]
    if len(threads) >= 8:
        checks.append(_flat("threads over the soak", "", _quarters(threads), MORE_THREADS, ".0f"))
    return checks


def _flat(what: str, unit: str, ends: tuple[float, float], most: float, form: str) -> Check:
    before, after = ends
    return Check(
        what=what,
        unit=unit,
        expected=before,
        measured=after,
        verdict="drifted" if after - before >= most else "holds",
        reason=f"from {before:{form}} to {after:{form}} {unit}".rstrip(),
    )


def _quarters(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the second and the last quarter; the first may still be settling."""
    quarter = len(values) // 4
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def _unmeasured(what: str, unit: str, expected: float | None, reason: str) -> Check:
    return Check(
        what=what, unit=unit, expected=expected, measured=None, verdict="unmeasured", reason=reason
    )


def _promised_spread(profile: Profile) -> float:
    """Return the relative uncertainty of the promised SPS.

    The profile's interval is for a fresh process: √2 wider than that of the figure itself.
    """
    if profile.expected_sps_ci95 is None or profile.expected_sps is None:
        return 0.0
    low, high = profile.expected_sps_ci95
    return (high - low) / 2 / math.sqrt(2) / profile.expected_sps


def _ratio(rates: Sequence[float], expected: float, promised_spread: float) -> Ratio:
    mean = statistics.fmean(rates)
    error = student_t(len(rates) - 1) * statistics.stdev(rates) / math.sqrt(len(rates)) / mean
    half_width = mean / expected * math.hypot(error, promised_spread)
    return Ratio(mean / expected, mean / expected - half_width, mean / expected + half_width)


def _relative_ratio(profile: Profile, records: Sequence[TrialRecord]) -> float | None:
    """Return the SPS ratio once both sides are divided by the probe measured beside them."""
    promised = profile.measured.get("probe")
    then = None if not isinstance(promised, dict) else _reach(promised)
    now = [
        record.sps / reach
        for record in records
        if record.sps is not None and (reach := _reach(record.probe or {}))
    ]
    if then is None or not now or profile.expected_sps is None:
        return None
    return statistics.median(now) / (profile.expected_sps / then)


def _reach(probe: dict[str, Any]) -> float | None:
    """Return the geometric mean of what matmul and copy reached."""
    rates = [probe.get(name) for name in ("matmul_flops_per_s", "copy_bytes_per_s")]
    known = [float(rate) for rate in rates if rate]
    return statistics.geometric_mean(known) if len(known) == len(rates) else None
