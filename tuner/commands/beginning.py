"""The command before a first study: init."""

from pathlib import Path
from typing import Annotated

import typer

from tuner.commands.shared import say

app = typer.Typer()


@app.command(epilog="Example: tuner init --env gymnax:CartPole-v1 -o study.yaml")
def init(
    env: Annotated[
        str, typer.Option(metavar="ENV", help="The environment, as `tuner start` takes it.")
    ] = "stress",
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")
    ] = Path("study.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a settings file with every setting, its meaning and its default on this machine."""
    from tuner.devices.detect import open_device
    from tuner.settings_file import next_command, write

    device = open_device()
    try:
        write(output, env, device.info(), force=force)
    finally:
        device.close()
    print(output)
    say(f"change what differs on your side, then: {next_command(output, env)}")
