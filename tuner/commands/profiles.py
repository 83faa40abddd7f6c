"""The commands about profiles: export, compare, transfer, validate, train."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tuner.commands.shared import AsJson, Name, RunsDir, Storage, print_json, say, takes_settings
from tuner.errors import UsageError

app = typer.Typer()

OwnEnv = Annotated[
    str | None, typer.Option(metavar="FACTORY", help="The environment, if it is your own.")
]
OwnTrainer = Annotated[
    str | None, typer.Option(metavar="FACTORY", help="The trainer, if it is your own.")
]
MovedData = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where the bars are now, if elsewhere.")
]
MovedFinerData = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where the finer bars are now.")
]


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


@app.command(epilog="Example: tuner compare demo/balanced demo/max_gpu elsewhere/balanced.yaml")
def compare(
    profiles: Annotated[
        list[str],
        typer.Argument(
            metavar="PROFILE",
            help="A profile's file; NAME for all three of a study; NAME/balanced for one.",
        ),
    ],
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Put profiles side by side, and say what can be told of each against the first.

    Measures nothing: a difference that the recorded intervals leave open stays open.
    """
    from tuner.comparison import compare as compare_profiles
    from tuner.report.comparison import print_comparison

    found = compare_profiles(profiles, runs_dir)
    print_json(found.as_dict()) if as_json else print_comparison(found)


@app.command(epilog="Example: tuner transfer elsewhere/balanced.yaml here --budget 30m")
@takes_settings("transfer")
def transfer(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile's file, or a study's NAME.")
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Of the new study [default: STUDY-transfer]."),
    ] = None,
    env: OwnEnv = None,
    trainer: OwnTrainer = None,
    data: MovedData = None,
    finer_data: MovedFinerData = None,
    learning: Annotated[
        Literal["kept", "measured"] | None,
        typer.Option(help="Whether it is kept or measured again [default: kept if it can be]."),
    ] = None,
    **settings: object,
) -> None:
    """Measure the front of a profile's study on this machine: a short study, three profiles.

    The profile names the configs, the baseline, the workload and the budget. Speed and memory are
    measured here; what the configs learned is kept where the profile holds it. Code of your own is
    run only if you name it here.
    """
    from tuner.commands.searching import end
    from tuner.profile_sources import resolve
    from tuner.report.live import live_view
    from tuner.transfer import transfer as transfer_front

    source = resolve(profile, Path(str(settings.get("runs_dir") or "runs")))[0]
    own = {"env": env, "trainer": trainer, "data": data, "finer_data": finer_data}
    with live_view(say) as (tell, observer):
        chosen, config, ending = transfer_front(
            source,
            name,
            {**settings, **own},
            learning=learning,
            say=tell,
            observer=observer,
        )
    if ending.profiles:
        say(f"side by side: tuner compare {source.name} {chosen}")
    end(chosen, config, ending)


@app.command(epilog="Example: tuner validate runs/demo/profiles/balanced.yaml")
def validate(
    profile: Annotated[Path, typer.Argument(metavar="PROFILE", help="A profile's file.")],
    tolerance: Annotated[
        str, typer.Option(metavar="SHARE", help="Loss that still counts as holding.")
    ] = "10%",
    env: OwnEnv = None,
    trainer: OwnTrainer = None,
    data: MovedData = None,
    finer_data: MovedFinerData = None,
    runs_dir: RunsDir = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure a profile's workload again: exit 0 if it holds, 6 if not, 9 if nobody can tell.

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
        bool, typer.Option("--strict", help="Refuse another device, workload or num_envs; exit 4.")
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
