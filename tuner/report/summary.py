"""The end of a study on the terminal: what was found, the profiles, the table, where time went."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from storage.profile_files import read
from storage.records import TrialRecord
from tuner.contamination import is_noisy
from tuner.profiles import PROFILE_NAMES
from tuner.report.overview import front_of, number
from tuner.report.reading import StudyReading, read_study
from tuner.roofline import UNEXPLAINED, Roofline, busy_but_idle

SHOWN = 12
"""Rows of the table of configs."""
WIDE = 72
"""Columns of a terminal on which the whole table fits."""


def print_report(name: str, places: Mapping[str, object]) -> None:
    """Print the report of a study on stdout."""
    study = read_study(name, places)
    console = Console(highlight=False)
    console.print(f"\n[bold]{headline(study)}[/bold]\n")
    console.print(_configs(study, console.width))
    console.print()
    _print_profiles(study, console)
    for line in (*reservations(study), time_line(study.records)):
        console.print(line, markup=False)


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
        f"{gain:.2f} × the baseline{quality}{limit}"
    )


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
    lines += [f"measured apart on other hardware: see `tuner report {g}`" for g in study.groups]
    ended = study.facts.get("ended")
    lines.append(f"search ended: {ended['reason']}" if ended else "the search has not ended")
    return lines


def idle_warning(record: TrialRecord) -> str | None:
    """Return the warning for a trial that NVML calls busy and its work calls idle."""
    roofline = Roofline(**{f.name: getattr(record, f.name) for f in fields(Roofline)})
    warning = busy_but_idle(record.gpu_util, sm_util=record.sm_util, roofline=roofline)
    return None if warning is None else f"trial {record.trial}: {warning}"


def time_line(records: Sequence[TrialRecord]) -> str:
    """Return the share of measured training, Σ window ÷ Σ (request to `done`), and the rest."""
    totals: dict[str, float] = {}
    for record in records:
        for phase, seconds in record.phases.items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    total = sum(record.duration or 0.0 for record in records)
    if total == 0 or "window" not in totals:
        return "measured training: nothing yet"
    rest = ", ".join(
        f"{phase.replace('_', '-')} {seconds / total:.0%}"
        for phase, seconds in sorted(totals.items(), key=lambda item: -item[1])
        if phase != "window"
    )
    return (
        f"measured training: {totals['window'] / total:.0%} of {total:.0f} s in "
        f"{len(records)} measurements; the rest went to {rest}"
    )


def _configs(study: StudyReading, width: int) -> Table:
    """Return the table of configs; on a narrow terminal without what scores are made of."""
    is_wide = width >= WIDE
    more = ("util %", "memory GB") if is_wide else ()
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "config", "env-steps/s", "quality", *more, "score"):
        table.add_column(column, justify="left" if column == "config" else "right", no_wrap=True)
    front, baseline = set(front_of(study)), study.baseline()
    ordered = sorted(study.summaries, key=lambda s: -(s.final_score or -1.0))
    shown = [s for s in ordered if s.status == "success"][:SHOWN]
    if baseline is not None and baseline not in shown:
        shown.append(baseline)
    for s in shown:
        extra = (number(s.device_util, ".0f"), number(s.peak_memory_gb, ".3f")) if is_wide else ()
        table.add_row(
            f"{s.trial}*" if s.trial in front else f"{s.trial} ",
            str(s.config),
            number(s.sps, ",.0f"),
            number(s.quality_score, ".2f"),
            *extra,
            number(s.final_score, ".3f"),
        )
    left_out = len([s for s in ordered if s.status == "success"]) - len(shown)
    failed = [s for s in ordered if s.status != "success"]
    caption = ["* on the Pareto front", "0 is the baseline"]
    if left_out > 0:
        caption.append(f"{left_out} more")
    if failed:
        ways = {
            way: sum(s.status == way for s in failed) for way in sorted({s.status for s in failed})
        }
        caption.append("without result: " + ", ".join(f"{n} {way}" for way, n in ways.items()))
    table.caption = "; ".join(caption)
    table.caption_justify = "left"
    return table


def _print_profiles(study: StudyReading, console: Console) -> None:
    folder = study.config.profiles_folder(study.name)
    for name in PROFILE_NAMES:
        path = folder / f"{name}.yaml"
        if not path.exists():
            continue
        profile = read(path)
        console.print(
            f"[bold]{name}[/bold]: num_envs={profile.num_envs} num_steps={profile.num_steps} "
            f"num_minibatches={profile.num_minibatches} num_epochs={profile.num_epochs}"
        )
        interval = profile.expected_sps_ci95
        spread = f" ({interval[0]:,.0f}–{interval[1]:,.0f})" if interval else ""
        console.print(
            f"  {number(profile.expected_sps, ',.0f')} env-steps/s{spread}, "
            f"{number(profile.expected_memory_gb, '.3f')} GB, "
            f"quality {number(profile.quality_score, '.2f')}; {path}",
            markup=False,
        )
        console.print(f"  {profile.reason}", markup=False)
    console.print()
