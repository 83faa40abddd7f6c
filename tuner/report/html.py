"""The report as one HTML file that opens anywhere: no server, no network, no other file.

plotly.js is written into it. What comes from elsewhere (names, reasons, versions) is escaped by the
template or, inside the data, kept from ending their script; a policy in the page's head lets no
other script run and nothing be fetched.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from storage.atomic import atomic_write_text
from storage.telemetry import Telemetry
from tuner.errors import UsageError
from tuner.goal import objective_of
from tuner.report import measuring
from tuner.report.figures import Plot
from tuner.report.overview import front_of
from tuner.report.plots import dimensions_of, study_plots
from tuner.report.reading import StudyReading, read_study
from tuner.report.series import Series, read_series
from tuner.report.story import headline, sentences, trial_story, without_result
from tuner.report.templates import render as fill_in
from tuner.report.trial_plots import curves, device_line, returns
from tuner.report.why import Explanation, chosen_configs, explain
from tuner.space import HardwareConfig
from tuner.workload import workload_facts

FILE_NAME = "report.html"
MOST_ROWS = 200
"""Rows of a table; the rest is counted."""


def write_html(name: str, places: Mapping[str, object], path: Path | None = None) -> Path:
    """Write the report of a study, in one step, and return its file.

    Args:
        name: of the study.
        places: `runs_dir` and `storage`, as flags give them.
        path: the file; `report.html` in the study's folder if None.

    Raises:
        StorageError: there is no such study, or its database cannot be read.
        UsageError: the file cannot be written.
    """
    study = read_study(name, places)
    target = study.config.folder(name) / FILE_NAME if path is None else path
    with Telemetry(study.config.storage_url(name), create=False) as telemetry:
        page = render(study, telemetry)
    try:
        atomic_write_text(target, page)
    except OSError as error:
        raise UsageError(
            f"--html must be a file that can be written, but got {target}: {error.strerror}; "
            "choose another"
        ) from None
    return target


def render(study: StudyReading, telemetry: Telemetry) -> str:
    """Return the page of a study."""
    from plotly.offline import get_plotlyjs

    explanations, refusal = explain(study)
    series = read_series(study, telemetry, chosen_configs(explanations))
    plots = study_plots(study, chosen_configs(explanations))
    plots.insert(-2, curves(study, series.named()))
    return fill_in(
        "report.html.j2",
        nonce=secrets.token_urlsafe(16),
        plotly_js=Markup(get_plotlyjs()),
        study=study,
        headline=headline(study),
        story=sentences(study),
        explanations=explanations,
        refusal=refusal,
        plots={plot.name: plot for plot in plots},
        dimensions=dimensions_of(study),
        data={"plots": _figures(plots), "trials": _trials(series)},
        series=series,
        tables=_tables(study, explanations),
        facts=_facts(study),
        how=measuring.how(study),
        absent=measuring.absences(study),
        limits=measuring.LIMITS,
    )


def _figures(plots: list[Plot]) -> dict[str, Any]:
    return {plot.name: plot.figure for plot in plots if plot.figure is not None}


def _trials(series: Series) -> dict[str, Any]:
    """Return what the page shows of a trial when it is selected."""
    shown = {}
    for entry in series.entries:
        plots = returns(entry.record, entry.curve), device_line(entry.record, entry.samples)
        shown[str(entry.record.trial)] = {
            "story": trial_story(entry.record),
            "plots": [
                {"title": plot.title, "figure": plot.figure, "missing": plot.missing}
                for plot in plots
            ],
        }
    return shown


def _tables(study: StudyReading, explanations: list[Explanation]) -> dict[str, Any]:
    front = set(front_of(study))
    roles: dict[HardwareConfig, list[str]] = {}
    for explanation in explanations:
        roles.setdefault(explanation.config, []).append(explanation.name)
    ordered = sorted(study.summaries, key=lambda s: -(objective_of(s) or -1.0))
    succeeded = [s for s in ordered if s.status == "success"]
    failed = [r for r in study.records if r.status != "success"]
    return {
        "configs": [
            (
                s,
                [*roles.get(s.config, ()), *(["baseline"] if s.trial == 0 else [])],
                s.trial in front,
            )
            for s in succeeded[:MOST_ROWS]
        ],
        "more_configs": max(0, len(succeeded) - MOST_ROWS),
        "failures": [(r.trial, r.status, trial_story(r)) for r in failed[:MOST_ROWS]],
        "more_failures": max(0, len(failed) - MOST_ROWS),
        "without_result": without_result(study.summaries),
    }


def _facts(study: StudyReading) -> dict[str, dict[str, Any]]:
    """Return what a study was measured on and with: a table each."""
    facts = study.facts
    environment = facts.get("environment", {})
    notes = facts.get("environment_notes") or []
    workload = workload_facts(study.config, environment, facts.get("data", {}))
    if study.config.has_rates:
        workload["ppo"] |= {"learning_rate": list(study.config.learning_rates)}
    return {
        "Hardware": facts.get("hardware", {}),
        "Versions": facts.get("versions", {}),
        "Workload": workload | ({"notes": "; ".join(notes)} if notes else {}),
    }
