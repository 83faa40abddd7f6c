"""What a study found, in words: said alike on the terminal, in the HTML page and in the dashboard.

Apart from those who show it, so that they cannot say different things of the same study.
"""

import statistics
from collections.abc import Sequence
from dataclasses import fields

from storage.profile import Profile
from storage.records import TrialRecord
from tuner.aggregate import ConfigSummary, hardware_of, observed_spread, that_count
from tuner.contamination import is_noisy
from tuner.profiles import TRANSFERRED_FROM
from tuner.report.numbers import number
from tuner.report.reading import StudyReading
from tuner.roofline import UNEXPLAINED, Roofline, busy_but_idle
from tuner.space import HardwareConfig

BOUNDS = {
    "compute": "the device's arithmetic",
    "memory": "the device's memory traffic",
    "launch": "how fast kernels start",
    "host": "the host between the device's work",
}
"""What `TrialRecord.bound` names, in words."""


def headline(study: StudyReading) -> str:
    """Return what was found, in one sentence."""
    best, baseline = study.best(), study.baseline()
    hardware = study.facts.get("hardware", {}).get("name", "this machine")
    if best is None or baseline is None or best.sps is None or baseline.sps is None:
        return f"{study.name} on {hardware}: nothing measured yet"
    gain = best.sps / baseline.sps
    quality = ""
    if best.quality_score is not None and baseline.quality_score is not None:
        quality = f" at quality {best.quality_score:.2f} (baseline {baseline.quality_score:.2f})"
    limit = "" if best.bound in (None, UNEXPLAINED) else f"; bound by {best.bound}"
    return (
        f"{study.name} on {hardware}: best is {best.config}, {best.sps:,.0f} env-steps/s, "
        f"{gain:.2f} × the baseline{quality}{_soonest(best, baseline)}{limit}"
    )


def _soonest(best: ConfigSummary, baseline: ConfigSummary) -> str:
    """Return how soon the best config reached the target return, if that was the goal."""
    if best.goal_score is None:
        return ""
    if best.seconds_to_target is None:
        return "; no config reached the target return"
    before = number(baseline.seconds_to_target, ".3g")
    return (
        f"; {best.seconds_to_target:.3g} s to the target return (baseline "
        f"{f'{before} s' if baseline.seconds_to_target is not None else 'never'})"
    )


def sentences(study: StudyReading) -> list[str]:
    """Return the rest of the story, in whole sentences: limits, noise, reservations, time."""
    lines = [limit_of(study), noise(study), *reservations(study), time_line(study.records)]
    return [line[0].upper() + line[1:] + ("" if line.endswith(".") else ".") for line in lines]


def limit_of(study: StudyReading) -> str:
    """Return what limits the best config, with the fractions that say so."""
    best = study.best()
    if best is None:
        return "What limits training here is not known: nothing has been measured yet."
    records = that_count([r for r in study.records if hardware_of(r) == best.config])
    shares = []
    for name, words in BOUNDS.items():
        known = [v for r in records if (v := getattr(r, f"{name}_fraction")) is not None]
        if known:
            shares.append(f"{words} {statistics.median(known):.0%}")
    measured = f" Measured shares: {', '.join(shares)}." if shares else ""
    if best.bound is None:
        return f"What limits {best.config} was not determined.{measured}"
    if best.bound == UNEXPLAINED:
        return f"Nothing that was measured explains what limits {best.config}.{measured}"
    return f"{best.config} is limited by {BOUNDS[best.bound]}.{measured}"


def reservations(study: StudyReading) -> list[str]:
    """Return what a reader must know before trusting the numbers."""
    lines = []
    measured = [r for r in study.records if r.status == "success"]
    noisy = [r for r in measured if r.contaminated]
    if is_noisy(study.records):
        lines.append(
            f"noisy machine: {len(noisy)} of {len(measured)} measurements were disturbed "
            f"({noisy[-1].contaminated})"
        )
    lines += sorted(set(filter(None, map(idle_warning, measured))))[:1]
    if study.references is not None and study.references.quality_reason is not None:
        lines.append(f"quality was not judged: {study.references.quality_reason}")
    if study.config.workers > 1:
        lines.append(
            f"{study.config.workers} workers measured at once on one CPU: sharing caches and "
            "memory bandwidth, configs ran slower in the search than alone; the baseline and the "
            "profiles' second measurements had the others idle"
        )
    origin = study.facts.get(TRANSFERRED_FROM)
    if origin is not None:
        lines.append(
            f"a transfer: tried the front of {origin['study']} (measured on {origin['hardware']}) "
            "and nothing else; "
            + (
                "speed, utilisation and memory were measured here, learning is kept from there"
                if origin.get("learning") == "kept"
                else "every figure was measured here"
            )
        )
    lines += [f"measured apart on other hardware: see `tuner report {g}`" for g in study.groups]
    lines += how_it_ended(study)
    return lines


def how_it_ended(study: StudyReading) -> list[str]:
    """Return why the search ended and what is believed still to be had, or that it has not."""
    ended = study.facts.get("ended")
    if not ended:
        return ["the search has not ended"]
    left = ended.get("outlook")
    return [f"search ended: {ended['reason']}", *([f"still to be had: {left}"] if left else [])]


def noise(study: StudyReading) -> str:
    """Return how noisy the machine was: disturbed measurements, and how repeated ones differ."""
    measured = [r for r in study.records if r.status == "success"]
    if not measured:
        return "How noisy the machine was is not known: no measurement succeeded."
    disturbed = sum(r.contaminated is not None for r in measured)
    groups: dict[HardwareConfig, list[TrialRecord]] = {}
    for record in study.records:
        groups.setdefault(hardware_of(record), []).append(record)
    spread = observed_spread(groups.values(), with_disturbed=is_noisy(study.records))
    repeated = (
        "no config was measured twice, so that the spread between runs is not known"
        if spread is None
        else f"one config measured again in a fresh process varied by {spread[0]:.1%} "
        f"(one standard deviation, {spread[1]} degrees of freedom)"
    )
    return f"{disturbed} of {len(measured)} measurements were disturbed; {repeated}."


def idle_warning(record: TrialRecord) -> str | None:
    """Return the warning for a trial that NVML calls busy and its work calls idle."""
    roofline = Roofline(**{f.name: getattr(record, f.name) for f in fields(Roofline)})
    warning = busy_but_idle(record.gpu_util, sm_util=record.sm_util, roofline=roofline)
    return None if warning is None else f"trial {record.trial}: {warning}"


def phase_seconds(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Return the seconds that went to each phase of the trials, the longest first."""
    totals: dict[str, float] = {}
    for record in records:
        for phase, seconds in record.phases.items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    return dict(sorted(totals.items(), key=lambda item: -item[1]))


def time_line(records: Sequence[TrialRecord]) -> str:
    """Return the share of measured training, Σ window ÷ Σ (request to `done`), and the rest."""
    totals = phase_seconds(records)
    total = sum(record.duration or 0.0 for record in records)
    if total == 0 or "window" not in totals:
        return "measured training: nothing yet"
    rest = ", ".join(
        f"{phase.replace('_', '-')} {seconds / total:.0%}"
        for phase, seconds in totals.items()
        if phase != "window"
    )
    return (
        f"measured training: {totals['window'] / total:.0%} of {total:.0f} s in "
        f"{len(records)} measurements; the rest went to {rest}"
    )


def expectation(profile: Profile) -> str:
    """Return what a profile expects, in one line."""
    interval = profile.expected_sps_ci95
    spread = f" ({interval[0]:,.0f}–{interval[1]:,.0f})" if interval else ""
    return (
        f"{number(profile.expected_sps, ',.0f')} env-steps/s{spread}, "
        f"{number(profile.expected_memory_gb, '.3f')} GB, "
        f"quality {number(profile.quality_score, '.2f')}"
    )


def without_result(summaries: Sequence[ConfigSummary]) -> str | None:
    """Return how the configs without a result ended, `None` where all have one."""
    failed = [s.status for s in summaries if s.status != "success"]
    if not failed:
        return None
    ways = {way: failed.count(way) for way in sorted(set(failed))}
    return "without result: " + ", ".join(f"{n} {way}" for way, n in ways.items())


def trial_story(record: TrialRecord) -> str:
    """Return what became of a measurement, in one sentence, with the reason where there is one."""
    if record.status != "success":
        reason = record.reason or "no reason was recorded"
        return f"{hardware_of(record)} ended as {record.status}: {reason.rstrip('.')}."
    told = [
        f"{hardware_of(record)} ran at {number(record.sps, ',.0f')} env-steps/s"
        f" and scored {number(record.final_score, '.3f')}."
    ]
    told += [record.quality_reason] if record.quality_reason else []
    if record.contaminated:
        told.append(f"It was disturbed by {record.contaminated}.")
    if record.device_util is None and record.util_reason:
        told.append(f"Utilisation is absent: {record.util_reason}.")
    return " ".join(told)
