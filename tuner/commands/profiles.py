"""The commands about profiles: export, validate, train."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.commands.shared import AsJson, Name, RunsDir, Storage, print_json, say, takes_settings
from tuner.errors import UsageError

app = typer.Typer()


@app.command(epilog="Example: tuner export demo -o profiles")
def export(
    name: Name,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="[default: runs/NAME/profiles]"),
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
) -> None:
    """Write the three profiles of a study from what it has measured."""
    from tuner.study import export_profiles

    if output is not None and output.exists() and not output.is_dir():
        raise UsageError(f"--output must be a folder, but got the file {output}; choose another")
    places = {"runs_dir": str(runs_dir), "storage": storage}
    for path in export_profiles(name, places, directory=output, say=say):
        print(path)


@app.command(epilog="Example: tuner validate runs/demo/profiles/balanced.yaml")
def validate(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="A profile's file.")],
    tolerance: Annotated[
        str, typer.Option(metavar="SHARE", help="Loss that still counts as holding.")
    ] = "10%",
    env: Annotated[
        str | None, typer.Option(metavar="FACTORY", help="The environment, if it is your own.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(metavar="FACTORY", help="The trainer, if it is your own.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the bars are now, if elsewhere.")
    ] = None,
    finer_data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the finer bars are now.")
    ] = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure a profile's workload again: exit 0 if it holds, 6 if not, 9 if noise hides it.

    Code of your own is run only if you name it here: a profile may come from anywhere.
    """
    from tuner.parse import share
    from tuner.report.validation import print_validation
    from tuner.validate import validate as validate_profile

    try:
        allowed = share(tolerance)
    except ValueError as error:
        raise UsageError(f"--tolerance {error}, but got {tolerance!r}") from None
    given = {
        "runs_dir": str(runs_dir),
        "env": env,
        "trainer": trainer,
        "data": data,
        "finer_data": finer_data,
    }
    found = validate_profile(profile, given, tolerance=allowed, say=say)
    print_json(found.as_dict()) if as_json else print_validation(found)
    raise typer.Exit(found.exit_code)


@app.command(
    epilog="Example: tuner train --profile runs/demo/profiles/balanced.yaml --total-steps 10000000 "
    "--checkpoint-dir trained"
)
@takes_settings("training")
def train(
    profile: Annotated[Path, typer.Option(metavar="PROFILE", help="A profile's file.")],
    checkpoint_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Takes checkpoints, metrics, logs and the result.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training there.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse another device or workload; exit 4.")
    ] = False,
    as_json: AsJson = False,
    **settings: object,
) -> None:
    """Train with a profile: its four numbers, its learning rate, its environment; flags win.

    Ctrl-C ends it with a checkpoint. Code of your own is run only if you name it here.
    """
    from tuner.report.training import TrainingView, print_trained
    from tuner.training import train as train_with

    with TrainingView(say) as view:
        trained = train_with(
            profile,
            settings,
            folder=checkpoint_dir,
            resume=resume,
            strict=strict,
            say=say,
            on_block=view.show,
        )
    print_json(trained.as_dict()) if as_json else print_trained(trained)
