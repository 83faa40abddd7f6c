"""The history of a study's profiles: every version that was written, and what each changed."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.console import Console

from storage.profile_files import read
from tuner.comparability import differences
from tuner.lookup import find
from tuner.profile_sources import Source
from tuner.report.numbers import number
from tuner.report.paragraph import print_paragraph
from tuner.space import DIMENSIONS, HardwareConfig
from tuner.terminal import printable

FIGURES = {
    "expected_sps": ("env-steps/s", ",.0f"),
    "quality_score": ("quality", ".3f"),
    "expected_memory_gb": ("memory GB", ".3f"),
    "expected_device_util": ("utilisation %", ".0f"),
    "final_score": ("score", ".3f"),
}
"""Fields whose change is told, with their names and formats."""


def profile_history(name: str, places: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return the profiles of a study, present ones and earlier ones, oldest first.

    `changes` are `[before, after]` by field against the version of the same profile before it,
    `circumstances` what else was different then: hardware, workload, versions.
    """
    config, _ = find(name, places)
    folder = config.profiles_folder(name)
    files = sorted(folder.glob("history/*.yaml")) + sorted(folder.glob("*.yaml"))
    versions = sorted(
        (Source(str(path), path, read(path)) for path in files),
        key=lambda source: str(source.profile.measured.get("date")),
    )
    before: dict[str, Source] = {}
    entries = []
    for source in versions:
        entries.append(_entry(source, before.get(source.profile.profile)))
        before[source.profile.profile] = source
    return entries


def print_history(history: list[dict[str, Any]]) -> None:
    """Print the versions of each profile, oldest first, with what changed from one to the next."""
    console = Console(highlight=False)
    if not history:
        console.print("no profiles yet; see tuner status, or tuner export")
    in_order = sorted(history, key=lambda entry: str(entry["profile"]))
    for profile, versions in groupby(in_order, key=lambda entry: str(entry["profile"])):
        console.print(profile, style="bold", markup=False)
        for entry in versions:
            print_paragraph(console, printable(_version(entry)), label="  ", indent=4)
            told = _told_changes(entry)
            if told is not None:
                print_paragraph(console, printable(told), label="    ", indent=6)


def _entry(source: Source, before: Source | None) -> dict[str, Any]:
    profile, values = source.profile, source.profile.as_dict()
    keys = ("profile", *DIMENSIONS, *FIGURES, "expected_sps_ci95", "learning_rate", "reason")
    changes: dict[str, Any] | None = None
    circumstances: list[str] = []
    if before is not None:
        then = before.profile.as_dict()
        watched = (*DIMENSIONS, "learning_rate", *FIGURES)
        changes = {key: [then[key], values[key]] for key in watched if then[key] != values[key]}
        found = differences(before, source)
        circumstances = [*found.hardware, *found.workload, *found.versions]
    return {
        **{key: values[key] for key in keys},
        "replicates": profile.measured.get("replicates"),
        "trials": profile.measured.get("trials"),
        "date": profile.measured.get("date"),
        "file": str(source.path),
        "changes": changes,
        "circumstances": circumstances,
    }


def _version(entry: Mapping[str, Any]) -> str:
    """Return what a version promises."""
    bounds = entry["expected_sps_ci95"]
    interval = "" if bounds is None else f" ({bounds[0]:,.0f}–{bounds[1]:,.0f})"
    figures = [f"{name} {number(entry[field], form)}" for field, (name, form) in FIGURES.items()]
    figures[0] += interval
    date = str(entry["date"] or "date not told")[:16].replace("T", " ")
    trials = "" if entry["trials"] is None else f"after {entry['trials']} trials; "
    return f"{date}  {_config(entry)}; {', '.join(figures)}; {trials}{entry['file']}"


def _told_changes(entry: Mapping[str, Any]) -> str | None:
    """Return what a version changed, as far as it shows; None of the first."""
    changes: Mapping[str, Any] | None = entry["changes"]
    if changes is None:
        return None
    parts = []
    before = {name: changes.get(name, [entry[name]])[0] for name in DIMENSIONS}
    if _config(before) != _config(entry):
        parts.append(f"config {_config(before)} → {_config(entry)}")
    shown = {"learning_rate": ("learning rate", ".3g"), **FIGURES}
    for field, (name, form) in shown.items():
        then, now = changes.get(field, (None, None))
        if number(then, form) != number(now, form):
            share = f" ({now / then - 1:+.1%})" if field == "expected_sps" and then and now else ""
            parts.append(f"{name} {number(then, form)} → {number(now, form)}{share}")
    parts += entry["circumstances"]
    return "changed: " + ("; ".join(parts) or "nothing that shows")


def _config(values: Mapping[str, Any]) -> HardwareConfig:
    return HardwareConfig(*(values[name] for name in DIMENSIONS))
