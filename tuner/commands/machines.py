"""The commands about machines: plan, targets, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.commands.shared import AsJson, RunsDir, print_json, say, sound_config, takes_settings

app = typer.Typer()


@app.command(epilog='Example: tuner plan --target "H100 SXM 80GB" --target "RTX 4090"')
@takes_settings("study")
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
    plans = make_plans(sound_config(config, settings), list(dict.fromkeys(targets)), say=say)
    print_json(plan_document(plans)) if as_json else print_plan(plans)


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
        print_json({"description": describe_here()})
    elif export:
        print(describe_here(), end="")
    elif as_json:
        print_json(targets_document(known()))
    else:
        print_targets(known())


@app.command(epilog="Example: tuner doctor")
def doctor(runs_dir: RunsDir = Path("runs"), as_json: AsJson = False) -> None:
    """Say what this machine is, and what can and cannot be measured on it."""
    from tuner.doctor import examine
    from tuner.report.checkup import print_doctor

    found = examine(runs_dir)
    print_json(found) if as_json else print_doctor(found)
