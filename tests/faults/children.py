"""Programs that run in place of the trial process and misbehave."""

from pathlib import Path

import pytest

from tests import BENCHMARKS
from tuner.isolation import CHILD_VARIABLE

BEGIN = f"""
import ctypes, json, os, resource, signal, subprocess, sys, threading, time
sys.path.insert(0, {str(BENCHMARKS)!r})
import stand_in_child
from tuner.child.channel import Channel, begin

arguments = begin()
channel = Channel(arguments.events_fd)
channel.listen()
channel.emit("ready")
request = channel.next_request()
FD = arguments.events_fd
"""
"""What every program begins with: it has heard its request, and `FD` takes its events."""
TRAIN = "stand_in_child.train(request, channel)\n"
"""A trial that ends well."""
LEAVE = """
sleep = "import time; time.sleep(600)"
left = [
    subprocess.Popen([sys.executable, "-S", "-c", sleep]),
    subprocess.Popen([sys.executable, "-S", "-c", sleep], start_new_session=True),
    subprocess.Popen([sys.executable, "-S", "-c", sleep], start_new_session=True),
]
left[2].send_signal(signal.SIGSTOP)
daemon = f"import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', {sleep!r}])"
subprocess.run([sys.executable, "-S", "-c", daemon], start_new_session=True)
"""
"""Leaves a child, one in a session of its own, a stopped one, and one whose parent has ended."""


def stand_in(folder: Path, patch: pytest.MonkeyPatch, code: str) -> None:
    """Let `code` run in place of the trial process from now on."""
    program = folder / "child.py"
    program.write_text(BEGIN + code)
    patch.setenv(CHILD_VARIABLE, str(program))


def die_once(folder: Path) -> str:
    """Return code that kills its process, but only the first one that comes to it."""
    return (
        "try:\n"
        f"    os.close(os.open({str(folder / 'has-died')!r}, os.O_CREAT | os.O_EXCL))\n"
        "    os.kill(os.getpid(), 9)\n"
        "except FileExistsError:\n"
        "    pass\n"
    )
