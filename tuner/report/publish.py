"""What a study leaves for those who look at it in a browser: its page, and the dashboard's part.

Apart from the dashboard that serves it because a study does this when it ends, without serving.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from storage import dashboard
from storage.errors import StorageError
from storage.records import TrialRecord
from storage.telemetry import Telemetry
from tuner.errors import TunerError
from tuner.report.figures import Plot
from tuner.report.html import write_html
from tuner.report.pictures import svg
from tuner.report.plots import study_plots
from tuner.report.reading import StudyReading, read_study
from tuner.report.story import headline, sentences, trial_story
from tuner.report.trial_plots import device_line, returns
from tuner.report.why import Explanation, chosen_configs, explain

METRIC = "score"
FOLDER = "artifacts"


def _curve(telemetry: Telemetry, name: str, record: TrialRecord) -> Plot:
    return returns(record, telemetry.curve(name, record.trial, record.replicate))


def _device(telemetry: Telemetry, name: str, record: TrialRecord) -> Plot:
    return device_line(record, telemetry.samples(name, record.trial, record.replicate))


PICTURES = {"training-curve.svg": _curve, "device-time-line.svg": _device}
"""The images of a trial, by file name, and how they are made."""


def publish(name: str, places: Mapping[str, object], say: Callable[[str], None]) -> None:
    """Write a study's page, and what the dashboard shows of it; say so where that is not possible.

    The study has ended by then and its profiles are written: nothing of it is lost.
    """
    try:
        say(f"report: {write_html(name, places)}")
        show_in_dashboard(name, places)
    except (StorageError, TunerError, OSError) as error:
        say(f"the report is not complete: {error}; try again: tuner report {name} --html FILE")


def show_in_dashboard(name: str, places: Mapping[str, object]) -> Path:
    """Bring notes, plots and images of a study up to date; return the folder of the images.

    Called again it writes only what has changed since.

    Raises:
        StorageError: there is no such study, or its database cannot be written.
        OSError: the images cannot be written.
    """
    study = read_study(name, places)
    folder = study.config.folder(name) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    url = study.config.storage_url(name)
    own = [record for record in study.records if record.replicate == 0]

    def of_study(ids: Mapping[int, int]) -> list[dashboard.Attributes]:
        explanations, refusal = explain(study)
        plots = study_plots(study, chosen_configs(explanations))
        return [
            dashboard.metric_name(METRIC),
            dashboard.note(_study_note(study, explanations, refusal)),
            *(dashboard.note(_trial_note(study, r), ids[r.trial]) for r in own if r.trial in ids),
            *filter(None, map(_plot, plots)),
        ]

    def of_trials(ids: Mapping[int, int]) -> dict[int, dashboard.Attributes]:
        with Telemetry(url, create=False) as telemetry:
            return {
                ids[r.trial]: _files(telemetry, name, r, folder, ids[r.trial])
                for r in own
                if r.trial in ids
            }

    dashboard.show(url, name, of_study, of_trials)
    return folder


def _plot(plot: Plot) -> dashboard.Attributes | None:
    if plot.figure is None:
        return None
    layout = {**plot.figure["layout"], "title": {"text": plot.title, "x": 0.02}}
    layout["margin"] = {**layout["margin"], "t": 56}
    layout.pop("height")  # the dashboard's cards have their own
    return dashboard.plot(plot.name, {"data": plot.figure["data"], "layout": layout})


def _files(
    telemetry: Telemetry, name: str, record: TrialRecord, folder: Path, trial_id: int
) -> dashboard.Attributes:
    """Write a trial's images that are missing; return the attributes that list them."""
    listed: dashboard.Attributes = {}
    for file_name, draw in PICTURES.items():
        if not dashboard.has_file(folder, trial_id, file_name):
            image = svg(draw(telemetry, name, record))
            if image is None:
                continue
            dashboard.write_file(folder, trial_id, file_name, image)
        listed |= dashboard.file(trial_id, file_name)
    return listed


def _study_note(study: StudyReading, explanations: list[Explanation], refusal: str | None) -> str:
    lines = [f"# {literal(headline(study))}", ""]
    lines += [f"- {literal(sentence)}" for sentence in sentences(study)]
    if refusal is not None:
        lines += ["", f"No profiles: {literal(refusal)}"]
    for e in explanations:
        told = f"{e.expectation}. {e.reason[0].upper()}{e.reason[1:]}."
        lines += ["", f"## {literal(e.name)}: {e.config}", "", literal(told), ""]
        lines += [f"- {literal(change)}" for change in e.changes]
    return "\n".join(lines)


def _trial_note(study: StudyReading, record: TrialRecord) -> str:
    again = [r for r in study.records if r.trial == record.trial and r.replicate > 0]
    lines = [literal(trial_story(record))]
    if again:
        lines += ["", "Measured again:", ""]
        lines += [f"- {literal(trial_story(replicate))}" for replicate in again]
    return "\n".join(lines)


def literal(text: str) -> str:
    """Return text that Markdown shows as it is: the dashboard would build HTML that is in it."""
    return re.sub(r"([\\`*_{}\[\]<>#|&])", r"\\\1", " ".join(text.split()))
