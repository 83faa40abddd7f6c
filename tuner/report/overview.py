"""Studies from afar: the list of them, and one study's status.

Each has a document (what `--json` prints, named in the contract) and a way to print it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from storage.errors import StorageError
from tuner.aggregate import ConfigSummary
from tuner.config import GROUP_MARK
from tuner.errors import TunerError
from tuner.report.numbers import number
from tuner.report.paragraph import print_paragraph
from tuner.report.reading import BRIEF, StudyReading, read_study


def list_document(runs_dir: Path) -> list[dict[str, Any]]:
    """Return what is known of every study under a runs folder, by name."""
    names = [path.parent.name for path in runs_dir.glob("*/config.yaml")]
    names += [
        f"{path.parents[2].name}{GROUP_MARK}{path.parent.name}"
        for path in runs_dir.glob("*/groups/*/config.yaml")
    ]
    return [_list_entry(name, runs_dir) for name in sorted(names)]


def print_list(entries: list[dict[str, Any]]) -> None:
    """Print the studies, one a row."""
    if not entries:
        Console().print("no studies here; begin one with: tuner start")
        return
    table = _table("study", "trials", "best score", "env-steps/s", "state")
    for entry in entries:
        best = entry["best"] or {}
        table.add_row(
            entry["study"],
            "" if entry["trials"] is None else str(sum(entry["trials"].values())),
            number(best.get("final_score"), ".3f"),
            number(best.get("sps"), ",.0f"),
            entry["state"],
        )
    Console().print(table)


def status_document(name: str, places: Mapping[str, object]) -> dict[str, Any]:
    """Return the status of a study: the document of `tuner status --json`."""
    study = read_study(name, places, only=BRIEF)
    hardware = study.facts.get("hardware")
    from storage.database import hide_password

    return {
        "study": name,
        "storage": hide_password(study.config.storage_url(name)),
        "trials": study.counts,
        "dead": list(study.dead),
        "statuses": study.statuses,
        "best": _with_score(study.best()),
        "baseline": _as_baseline(study.baseline()),
        "front": front_of(study),
        "elapsed_s": sum(r.duration for r in study.records if r.duration is not None),
        "ended": study.facts.get("ended"),
        "groups": list(study.groups),
        "device": None
        if hardware is None
        else {key: hardware[key] for key in ("kind", "name", "memory_gb", "uuid")},
    }


def print_status(document: Mapping[str, Any]) -> None:
    """Print a study's status in words."""
    console = Console(highlight=False)
    device = document["device"] or {"name": "device not known yet"}
    print_paragraph(console, f"{document['study']} on {device['name']}", style="bold")
    trials = ", ".join(f"{count} {state}" for state, count in document["trials"].items() if count)
    print_paragraph(console, trials or "none yet", label="trials    ")
    if document["dead"]:
        numbers = ", ".join(map(str, document["dead"]))
        told = f"trial {numbers}: its worker is gone; the next one ends it"
        print_paragraph(console, told, label="dead      ")
    ways = ", ".join(f"{count} {way}" for way, count in document["statuses"].items() if count)
    print_paragraph(console, ways or "none yet", label="ended as  ")
    for what in ("baseline", "best"):
        found = document[what]
        if found is not None:
            config = " ".join(f"{key}={value}" for key, value in found["config"].items())
            speed = number(found["sps"], ",.0f")
            told = f"trial {found['trial']}: {config}, {speed} env-steps/s"
            print_paragraph(console, told, label=f"{what:<9} ")
    if document["groups"]:
        told = f"of other hardware: {', '.join(document['groups'])}"
        print_paragraph(console, told, label="groups    ")
    ended = document["ended"]
    if ended is not None:
        print_paragraph(console, f"ended: {ended['reason']}", label="search    ")
        if ended.get("outlook"):
            print_paragraph(console, ended["outlook"], label="left      ")
        if ended["refusal"]:
            print_paragraph(console, f"none: {ended['refusal']}", label="profiles  ")


def front_of(study: StudyReading) -> list[int]:
    """Return the trials on the Pareto front that profiles are chosen from, in order."""
    from tuner.pareto import pareto_front

    if study.references is None:
        return []
    names = {"gpu": "device_util", "quality": "quality_score", "sps": "sps"}
    used = [names[component] for component in study.references.components]
    eligible = [
        s
        for s in study.summaries
        if s.status == "success"
        and (s.eligible or "quality" not in study.references.components)
        and all(getattr(s, name) is not None for name in used)
    ]
    points = [
        [float(getattr(s, name)) for name in (*used, "goal_score") if getattr(s, name) is not None]
        for s in eligible
    ]
    return sorted(eligible[index].trial for index in pareto_front(points))


def _list_entry(name: str, runs_dir: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"study": name, "trials": None, "best": None}
    try:
        study = read_study(name, {"runs_dir": str(runs_dir)}, only=BRIEF)
    except (StorageError, TunerError) as error:
        return entry | {"state": f"unreadable: {error}"}
    state = "unfinished" if study.facts.get("ended") is None else "ended"
    return entry | {"trials": study.counts, "best": _with_score(study.best()), "state": state}


def _with_score(summary: ConfigSummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {
        "trial": summary.trial,
        "final_score": summary.final_score,
        "config": summary.config.params(),
        "sps": summary.sps,
    }


def _as_baseline(summary: ConfigSummary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {
        "trial": summary.trial,
        "config": summary.config.params(),
        "sps": summary.sps,
        "mean_return": summary.mean_return,
    }


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table
