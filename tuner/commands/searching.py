"""The commands that search: start, resume, worker."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.address import complete
from tuner.commands.shared import AllowMixed, Name, say, sound_config, takes_settings
from tuner.errors import UsageError
from tuner.interrupts import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from tuner.config import StudyConfig

app = typer.Typer()


@app.command(epilog="Example: tuner start demo --env gymnax:CartPole-v1 --budget 10m")
@takes_settings("study")
def start(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")] = "demo",
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", metavar="FILE", help="Settings in YAML; flags win."),
    ] = None,
    **settings: object,
) -> None:
    """Start a study: calibrate, search, measure the best again, write three profiles."""
    loaded = sound_config(config, settings)
    loaded = loaded.model_copy(update={"storage": complete(loaded.storage)})
    from tuner.report.live import live_view
    from tuner.study import start as start_study

    with live_view(say) as (tell, observer):
        ending = start_study(loaded, name, say=tell, observer=observer)
    end(name, loaded, ending)


@app.command(epilog="Example: tuner resume demo --budget 10m")
@takes_settings("study")
def resume(name: Name, allow_mixed: AllowMixed = False, **settings: object) -> None:
    """Go on with a study that was stopped or killed, or that is to run for longer.

    Workload, space, goal, seed, weights and env-steps stay the study's: others are refused.
    """
    from tuner.lookup import find
    from tuner.report.live import live_view
    from tuner.study import resume as resume_study

    with live_view(say) as (tell, observer):
        ending = resume_study(name, settings, allow_mixed=allow_mixed, say=tell, observer=observer)
    end(name, find(name, settings)[0], ending)


@app.command(epilog="Example: tuner worker demo --storage postgresql+psycopg://tuner@host/db")
@takes_settings("study")
def worker(
    name: Name,
    wait: Annotated[
        str, typer.Option(metavar="TIME", help="Longest wait for a study's calibration.")
    ] = "10m",
    allow_mixed: AllowMixed = False,
    **settings: object,
) -> None:
    """Join a study from this machine: run its trials until there is a reason to stop."""
    from tuner.parse import seconds
    from tuner.trials import INTERRUPTED
    from tuner.worker import work

    try:
        wait_s = float(str(seconds(wait)))
    except ValueError as error:
        raise UsageError(f"--wait {error}, but got {wait!r}") from None
    reason = work(name, settings, wait_s=wait_s, allow_mixed=allow_mixed, say=say)
    say(f"worker of {name} ended: {reason}")
    raise typer.Exit(EXIT_INTERRUPTED if reason == INTERRUPTED else 0)


def end(name: str, config: "StudyConfig", ending: Any) -> None:
    """Print the summary of a study, publish it and leave with its exit code.

    An interrupted one only says how to go on and publishes what there is; asked again, it leaves.
    """
    from tuner.report.publish import publish
    from tuner.report.summary import print_report

    places = {"runs_dir": str(config.runs_dir), "storage": config.storage}
    if ending.exit_code == EXIT_INTERRUPTED:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        say(f"tuner: stopped, finished trials are saved; go on with `tuner resume {name}`")
    else:
        print_report(name, places)
    if ending.is_news:
        publish(name, places, say)
    if ending.refusal is not None:
        say(f"tuner: {ending.refusal}")
    raise typer.Exit(ending.exit_code)
