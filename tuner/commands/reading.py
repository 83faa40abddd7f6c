"""The commands that read studies: list, status, show, report, dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.commands.shared import AsJson, Name, RunsDir, Storage, print_json, say

app = typer.Typer()


@app.command("list", epilog="Example: tuner list")
def list_studies(runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """List the studies here."""
    from tuner.report.overview import list_document, print_list

    document = list_document(runs_dir)
    print_json(document) if as_json else print_list(document)


@app.command(epilog="Example: tuner status demo --json")
def status(
    name: Name,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Say how far a study is, what is best so far, and why trials ended.

    Trials that a dead worker left running are ended first.
    """
    from tuner.report.overview import print_status, status_document

    places = {"runs_dir": str(runs_dir), "storage": storage}
    document = status_document(name, places)
    if document["dead"]:
        from tuner.closing import close_in_passing

        close_in_passing(name, places, say=say)
        document = status_document(name, places)
    print_json(document) if as_json else print_status(document)


@app.command(epilog="Example: tuner show demo 7")
def show(
    name: Name,
    trial: Annotated[int | None, typer.Argument(metavar="TRIAL", help="Its number.")] = None,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show one trial in full; without TRIAL, the history of the study's profiles."""
    places = {"runs_dir": str(runs_dir), "storage": storage}
    if trial is None:
        from tuner.report.history import print_history, profile_history

        history = profile_history(name, places)
        print_json(history) if as_json else print_history(history)
    else:
        from tuner.report import details

        document = details.trial_document(name, trial, places)
        print_json(document) if as_json else details.print_trial(document)


@app.command(epilog="Example: tuner report demo --html demo.html")
def report(
    name: Name,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with plots that opens offline."),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
) -> None:
    """Print the study's tables: configs, profiles, and where the time went; or a page of plots."""
    places = {"runs_dir": str(runs_dir), "storage": storage}
    if html is not None:
        from tuner.report.html import write_html

        print(write_html(name, places, html))
        return
    from tuner.report.summary import print_report

    print_report(name, places)


@app.command(epilog="Example: tuner dashboard demo --port 8080")
def dashboard(
    name: Name,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1.")] = 8080,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
) -> None:
    """Open optuna-dashboard on a study, on this machine only."""
    from tuner.report.dashboard import serve

    serve(name, {"runs_dir": str(runs_dir), "storage": storage}, port=port, say=say)
