"""The command line: parse, call, print, and map errors to exit codes.

Nothing is decided here. Heavy imports happen inside the commands that need them, so that
`tuner --help` answers at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tuner.address import ON_COMMAND_LINE, complete, has_visible_password, hide_in_text
from tuner.config import StudyConfig, flag, load_config
from tuner.errors import TunerError, UsageError
from tuner.flags import STUDY, TRAINING, settings_as_flags
from tuner.interrupts import EXIT_INTERRUPTED, own_slot
from tuner.terminal import outlive_readers

app = typer.Typer(
    help="Measure which num_envs, num_steps, num_minibatches and num_epochs train PPO in JAX best "
    "on this machine.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0")
"""What may follow a switch as its value."""

_CONTROLS = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)
}
"""Characters that could move the cursor or worse: a message may quote a file from anyone."""

_TYPER_INTERRUPTED = 130
"""What typer returns for a Ctrl-C that nobody below it has handled."""

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
RunsDir = Annotated[Path, typer.Option(help="Folder of all studies.")]
AllowMixed = Annotated[
    bool,
    typer.Option(
        "--allow-mixed", help="On other hardware measure a group of its own, with own profiles."
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(help="Database URL [default: as started; else TUNER_STORAGE, SQLite in NAME]."),
]


def say(line: str) -> None:
    """Tell the user of progress; results go to stdout instead.

    Every line of a worker that a leader has started begins with its number.
    """
    slot = own_slot()
    told = line if slot is None else f"[{slot}] {line}"
    whole = f"{hide_in_text(told).translate(_CONTROLS)}\n"  # in one write: threads say lines too
    print(whole, end="", file=sys.stderr, flush=True)


@app.command(epilog="Example: tuner start demo --env gymnax:CartPole-v1 --budget 10m")
@settings_as_flags(STUDY)
def start(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the study.")] = "demo",
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", metavar="FILE", help="Settings in YAML; flags win."),
    ] = None,
    **settings: object,
) -> None:
    """Start a study: calibrate, search, measure the best again, write three profiles."""
    loaded = _sound(config, settings)
    loaded = loaded.model_copy(update={"storage": complete(loaded.storage)})
    from tuner.study import start as start_study

    ending = start_study(loaded, name, say=say)
    _end(name, loaded, ending)


@app.command(epilog='Example: tuner plan --target "H100 SXM 80GB" --target "RTX 4090"')
@settings_as_flags(STUDY)
def plan(
    config: Annotated[
        Path | None,
        typer.Option("-c", "--config", metavar="FILE", help="Settings in YAML; flags win."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="GPU", help="A GPU that is not here (repeatable): `tuner targets`."),
    ] = None,
    target_file: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Its description in a file (repeatable)."),
    ] = None,
    as_json: AsJson = False,
    **settings: object,
) -> None:
    """Say what a study would try: memory of every config, what will not fit, minutes."""
    from tuner.plan import plan as make_plans
    from tuner.report.plan import plan_document, print_plan
    from tuner.targets.table import find, from_file

    targets = [find(name).target() for name in target or ()]
    targets += [from_file(path) for path in target_file or ()]
    plans = make_plans(_sound(config, settings), list(dict.fromkeys(targets)), say=say)
    _print_json(plan_document(plans)) if as_json else print_plan(plans)


@app.command(epilog="Example: tuner targets --json")
def targets(
    export: Annotated[
        bool, typer.Option("--export", help="Describe the GPU of this machine instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the GPUs that `tuner plan --target` knows, with the source of their figures."""
    from tuner.report.plan import print_targets, targets_document
    from tuner.targets.here import describe_here
    from tuner.targets.table import known

    if export and as_json:
        _print_json({"description": describe_here()})
    elif export:
        print(describe_here(), end="")
    elif as_json:
        _print_json(targets_document(known()))
    else:
        print_targets(known())


@app.command(epilog="Example: tuner resume demo --budget 10m")
@settings_as_flags(STUDY)
def resume(name: Name, allow_mixed: AllowMixed = False, **settings: object) -> None:
    """Go on with a study that was stopped or killed, or that is to run for longer."""
    from tuner.lookup import find
    from tuner.study import resume as resume_study

    ending = resume_study(name, settings, allow_mixed=allow_mixed, say=say)
    _end(name, find(name, settings)[0], ending)


@app.command(epilog="Example: tuner worker demo --storage postgresql+psycopg://tuner@host/db")
@settings_as_flags(STUDY)
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


@app.command("list", epilog="Example: tuner list")
def list_studies(runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """List the studies here."""
    from tuner.report.overview import list_document, print_list

    document = list_document(runs_dir)
    _print_json(document) if as_json else print_list(document)


@app.command(epilog="Example: tuner status demo --json")
def status(
    name: Name,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Say how far a study is, what is best so far, and why trials ended."""
    from tuner.report.overview import print_status, status_document

    document = status_document(name, {"runs_dir": str(runs_dir), "storage": storage})
    _print_json(document) if as_json else print_status(document)


@app.command(epilog="Example: tuner show demo 7")
def show(
    name: Name,
    trial: Annotated[int | None, typer.Argument(metavar="TRIAL", help="Its number.")] = None,
    runs_dir: RunsDir = Path("runs"),
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show one trial in full; without TRIAL, the history of the study's profiles."""
    from tuner.report import details

    places = {"runs_dir": str(runs_dir), "storage": storage}
    if trial is None:
        history = details.profile_history(name, places)
        _print_json(history) if as_json else details.print_history(history)
    else:
        document = details.trial_document(name, trial, places)
        _print_json(document) if as_json else details.print_trial(document)


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
    _print_json(found.as_dict()) if as_json else print_validation(found)
    raise typer.Exit(found.exit_code)


@app.command(
    epilog="Example: tuner train --profile runs/demo/profiles/balanced.yaml --total-steps 10000000 "
    "--checkpoint-dir trained"
)
@settings_as_flags(TRAINING)
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
    _print_json(trained.as_dict()) if as_json else print_trained(trained)


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


@app.command(epilog="Example: tuner doctor")
def doctor(runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """Say what this machine is, and what can and cannot be measured on it."""
    from tuner.doctor import examine
    from tuner.report.checkup import print_doctor

    found = examine(runs_dir)
    _print_json(found) if as_json else print_doctor(found)


def main() -> None:
    """Run the command line and exit; every expected error is one line on stderr."""
    outlive_readers()
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    from storage.errors import StorageError

    if has_visible_password(arguments):
        say(ON_COMMAND_LINE)
    try:
        result = app(
            args=_switches_with_values(arguments) or ["--help"],
            prog_name="tuner",
            standalone_mode=False,
        )
    except typer.Abort:
        return EXIT_INTERRUPTED
    except typer.TyperException as error:
        say(f"tuner: {' '.join(error.format_message().split())}")
        return 2
    except TunerError as error:
        say(f"tuner: {error}")
        return error.exit_code
    except StorageError as error:
        say(f"tuner: {error}")
        return _storage_exit_code(error)
    except OSError as error:
        say(
            f"tuner: files must be readable and the disk writable, but got: {error}; free space "
            "or choose another --runs-dir"
        )
        return 8
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if result == _TYPER_INTERRUPTED:
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _switches_with_values(arguments: list[str]) -> list[str]:
    """Return the arguments with `true` after every switch that stands alone.

    All settings take a value; `--drop-bad-rows` alone means `--drop-bad-rows true`.
    """
    fields = StudyConfig.model_fields.items()
    switches = {flag(name) for name, field in fields if field.annotation is bool}
    completed: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        completed.append(argument)
        if argument in switches and following.lower() not in TRUTHS:
            completed.append("true")
    return completed


def _storage_exit_code(error: Exception) -> int:
    from storage import errors

    refused = errors.StudyExists | errors.AlreadyLed | errors.NewerSchema | errors.OlderSchema
    if isinstance(error, refused):
        return 4
    return 8 if isinstance(error, errors.StorageUnavailable) else 2


def _sound(file: Path | None, settings: dict[str, object]) -> StudyConfig:
    """Return the settings of a file with flags on top, with nothing in them that cannot be."""
    from tuner.workload import require_named_code, require_sound

    loaded = load_config(file, settings)
    if file is not None:
        require_named_code(loaded, settings, file)
    require_sound(loaded)
    return loaded


def _end(name: str, config: StudyConfig, ending: Any) -> None:
    """Print the summary of a study and leave with its exit code."""
    from tuner.report.publish import publish
    from tuner.report.summary import print_report

    if ending.exit_code != EXIT_INTERRUPTED:
        places = {"runs_dir": str(config.runs_dir), "storage": config.storage}
        print_report(name, places)
        publish(name, places, say)
    if ending.refusal is not None:
        say(f"tuner: {ending.refusal}")
    if ending.exit_code == EXIT_INTERRUPTED:
        say(f"tuner: stopped, finished trials are saved; go on with `tuner resume {name}`")
    raise typer.Exit(ending.exit_code)


def _print_json(document: object) -> None:
    print(json.dumps(document, ensure_ascii=False))
