"""One trial in full."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from storage.records import TrialRecord
from storage.telemetry import Telemetry
from tuner.errors import UsageError
from tuner.lookup import find
from tuner.measurement import memory_error
from tuner.report.numbers import number, sparkline
from tuner.report.paragraph import print_paragraph

LABEL = 20
"""Columns of a field's name."""


def trial_document(name: str, trial: int, places: Mapping[str, object]) -> dict[str, Any]:
    """Return a trial's record, its replicates, its curve and the lines of its log.

    Raises:
        UsageError: the study has no record of that trial.
    """
    config, _ = find(name, places)
    url = config.storage_url(name)
    with Telemetry(url, create=False) as telemetry:
        records = telemetry.records_of(name, trial)
        known = telemetry.trials(name) if not records else []
        curve = telemetry.curve(name, trial)
    if not records:
        raise UsageError(
            f"TRIAL must be one that has ended, {_ranges(known)}, but got {trial}; see "
            f"`tuner report {name}`"
        )
    log = config.folder(name) / "logs" / f"trial-{trial:04d}.log"
    return {
        **_with_error(records[0]),
        "replicates": [_with_error(record) for record in records[1:]],
        "curve": [
            {
                "env_steps": point.env_steps,
                "seconds": point.seconds,
                "learning": point.learning,
                **point.metrics,
            }
            for point in curve
        ],
        "log": str(log) if log.exists() else None,
    }


def print_trial(document: Mapping[str, Any]) -> None:
    """Print every field of a trial that was measured, and how its training went."""
    console = Console(highlight=False)
    hidden = ("curve", "replicates", "phases", "probe", "log")
    for key, value in document.items():
        if key not in hidden and value is not None:
            print_paragraph(console, _short(value), label=f"{key:<{LABEL}} ")
    phases = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in document["phases"].items())
    print_paragraph(console, phases, label=f"{'time went to':<{LABEL}} ")
    for replicate in document["replicates"]:
        print_paragraph(
            console,
            f"{replicate['status']}, {number(replicate['sps'], ',.0f')} env-steps/s, "
            f"score {number(replicate['final_score'], '.3f')}"
            + (f", {replicate['contaminated']}" if replicate["contaminated"] else ""),
            label=f"{'measured again':<{LABEL}} ",
        )
    returns = [
        point["mean_return"]
        for point in document["curve"]
        if point["mean_return"] is not None and point["learning"]
    ]
    if returns:
        told = f"{sparkline(returns)} {returns[0]:.3g} to {returns[-1]:.3g}"
        print_paragraph(console, told, label=f"{'training return':<{LABEL}} ")
    log = document["log"] or "none on this machine"
    print_paragraph(console, log, label=f"{'log':<{LABEL}} ")


def _with_error(record: TrialRecord) -> dict[str, Any]:
    """Return a record's fields with what follows from them."""
    return {**record.as_dict(), "memory_error": memory_error(record)}


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, tuple | list):
        return " to ".join(_short(item) for item in value)
    return str(value)


def _ranges(numbers: list[int]) -> str:
    return f"{numbers[0]} to {numbers[-1]}" if numbers else "of which there is none yet"
