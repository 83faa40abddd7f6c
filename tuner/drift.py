"""Whether what a profile promises still holds, judged from new measurements of its workload.

Apart from `validate`, which makes these measurements, because the verdict is arithmetic: it can be
read, and tested, without a machine.

A verdict is `holds`, `drifted`, or `unclear` where the machine cannot tell the two apart;
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
from tuner.kept_learning import TRAININGS
from tuner.probe import reach, sps_per_reach
from tuner.throughput import student_t

Verdict = Literal["holds", "drifted", "unclear", "unmeasured"]

LOW_END = 0.5
"""Share of what must be reached, below which the low end of even a good ratio proves nothing."""
WIDE_QUALITY = 0.5
"""Spread of quality, as a share of what was promised, beyond which nothing can be told."""
MEMORY_SLACK_GB = 0.032
"""Pages of libraries and thread stacks that come with a process and not with its program."""
UTIL_POINTS = 10.0
"""Percentage points that utilisation may fall; more where the tolerance is above 10 %."""
GROWTH_SHARE, GROWTH_BYTES = 0.02, 16_000_000
"""Growth from the second quarter of a soak to its last that is a leak; the larger of the two."""
MORE_THREADS = 2
BASELINE_DOF = 2
"""Degrees of freedom of a profile's `quality_sd`: the baseline has at least three replicates."""
FEWEST_BLOCKS = 8


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

    It holds when both are at least `1 − tolerance` of what was promised. It has drifted when both
    spreads cannot explain why not, by the probe where there is one, because a machine that is
    itself slower or faster now says nothing of the profile. Else it is unclear.
    """
    rates = [record.sps for record in records if record.sps is not None]
    expected = profile.expected_sps
    if expected is None or len(rates) < 2:
        return _unmeasured("throughput", "env-steps/s", expected, "too few measurements")
    spread = promised_spread(profile)
    ratio = _ratio(rates, expected, spread)
    relative = _relative_ratio(profile, records, spread)
    words = f"{_in_words(ratio)} of what was promised"
    if relative is not None:
        words += f", {_in_words(relative)} relative to the probe beside it"
    verdict, why = _verdict(ratio, relative, 1 - tolerance, is_disturbed=is_noisy(records))
    return Check(
        what="throughput",
        unit="env-steps/s",
        expected=expected,
        measured=statistics.fmean(rates),
        verdict=verdict,
        reason=words + why,
    )


def _verdict(
    ratio: Ratio, relative: Ratio | None, least: float, *, is_disturbed: bool
) -> tuple[Verdict, str]:
    """Return the verdict on two ratios, and what it adds to the words about them."""
    judged = ratio if relative is None else relative
    if min(ratio.value, judged.value) >= least:
        if min(ratio.low, judged.low) < LOW_END * least:
            return "unclear", ": the spread is too wide to tell"
        return "holds", ""
    if judged.value >= least:
        return "unclear", ": the machine itself is slower than it was"
    if judged.high >= 1:
        return "unclear", ": the spread leaves it open"
    if relative is None and is_disturbed:
        return "unclear", ": most measurements were disturbed"
    return "drifted", ""


def _in_words(ratio: Ratio) -> str:
    return f"{ratio.value:.0%} ({ratio.low:.0%}–{ratio.high:.0%})"


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
    """Judge the mean quality over seeds: below `1 − tolerance` by more than both spreads.

    The spread is t · s · √(1/n + 1/m), s pooled over the baseline's seeds and the new ones.
    """
    expected = profile.quality_score
    if expected is None or len(scores) < 2:
        return _unmeasured("quality", "", expected, "quality was not measured")
    mean, variance, dof = statistics.fmean(scores), statistics.variance(scores), len(scores) - 1
    then = profile.measured.get("quality_sd")
    if then is not None:
        variance = (variance * dof + then**2 * BASELINE_DOF) / (dof + BASELINE_DOF)
        dof += BASELINE_DOF
    replicates = profile.measured.get(TRAININGS) or profile.measured.get("replicates") or 1
    spread = student_t(dof) * math.sqrt(variance * (1 / replicates + 1 / len(scores)))
    verdict: Verdict = "holds"
    if mean < expected - max(tolerance * expected, spread):
        verdict = "drifted"
    elif mean < (1 - tolerance) * expected and spread > WIDE_QUALITY * expected:
        verdict = "unclear"
    return Check(
        what="quality",
        unit="",
        expected=expected,
        measured=mean,
        verdict=verdict,
        reason=f"{mean - expected:+.2f}, the seeds' spread being ±{spread:.2f}",
    )


def check_flat(curve: Sequence[CurvePoint]) -> list[Check]:
    """Judge whether memory and threads stay flat over a soak: its last quarter to its second.

    Memory is the process's own and what it holds of an accelerator's.
    """
    checks = []
    for what, values in (
        ("memory over the soak", [p.resident_bytes for p in curve]),
        ("device memory over the soak", [p.held_bytes for p in curve]),
    ):
        known = [value / 1e9 for value in values if value is not None]
        if len(known) >= FEWEST_BLOCKS:
            before, after = _quarters(known)
            most = max(GROWTH_SHARE * before, GROWTH_BYTES / 1e9)
            checks.append(_flat(what, "GB", (before, after), most, ".3f"))
    threads = [point.threads for point in curve if point.threads is not None]
    if len(threads) >= FEWEST_BLOCKS:
        checks.append(_flat("threads over the soak", "", _quarters(threads), MORE_THREADS, ".0f"))
    if not checks:
        return [_unmeasured("soak", "", None, f"it must have {FEWEST_BLOCKS} blocks or more")]
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


def promised_spread(profile: Profile) -> float:
    """Return the relative half-width that belongs to the promised SPS itself.

    The profile's interval is for a fresh process: with n replicates behind the figure, √(n + 1)
    wider than the figure's own.
    """
    if profile.expected_sps_ci95 is None or not profile.expected_sps:
        return 0.0
    low, high = profile.expected_sps_ci95
    replicates = profile.measured.get("replicates") or 1
    half_width = max(high - profile.expected_sps, profile.expected_sps - low, 0.0)
    return float(half_width / math.sqrt(replicates + 1) / profile.expected_sps)


def _ratio(rates: Sequence[float], expected: float, promised: float) -> Ratio:
    mean = statistics.fmean(rates)
    error = student_t(len(rates) - 1) * statistics.stdev(rates) / math.sqrt(len(rates)) / mean
    half_width = mean / expected * math.hypot(error, promised)
    return Ratio(mean / expected, mean / expected - half_width, mean / expected + half_width)


def _relative_ratio(
    profile: Profile, records: Sequence[TrialRecord], promised: float
) -> Ratio | None:
    """Return the SPS ratio once both sides are divided by the probe measured beside them.

    `measured.probe` holds the promise as SPS over reach, and the SPS that was promised with it.
    """
    probe = profile.measured.get("probe") or {}
    reached, sps = reach(probe), probe.get("sps_per_reach")
    now = sps_per_reach(records)
    if reached is None or not sps or len(now) < 2 or profile.expected_sps is None:
        return None
    return _ratio(now, profile.expected_sps / probe["sps"] * sps, promised)
