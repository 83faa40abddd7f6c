"""How long a trial process lives: never longer than its parent, whatever it is doing.

Linux kills it with its parent, also while it is stopped or inside a library that lets no Python
thread run; elsewhere it notices that its stdin was closed (`tuner.child.channel`).
"""

import ctypes
import os
import signal
import sys
from types import FrameType

_PR_SET_PDEATHSIG = 1


def live_with_parent(parent: int) -> None:
    """End with process `parent`, and leave it to that one to answer requests to stop.

    A scheduler sends SIGTERM to every process of a job: the parent lets the running block end.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not ignored, which programs that a trial starts would inherit.
        signal.signal(number, _leave_it_to_the_parent)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before this process could say so


def end_group() -> None:
    """End this process and those of its group, without a word."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _leave_it_to_the_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing."""
