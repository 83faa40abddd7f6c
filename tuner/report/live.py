"""The live view of a study on a terminal, while it is started or resumed.

One thread of this process owns the terminal: what the study tells and the lines that it says go to
it through a queue, so that neither waits for the other, a signal's handler may speak at any moment,
and a fault of the view ends the view alone.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live

from tuner.bench import Say
from tuner.observer import NOBODY, Notice, Observer
from tuner.report.frame import frame
from tuner.report.progress import Progress, advanced

REFRESH_S = 1.0
"""Time between two frames: drawing one takes milliseconds of a core that may be measured."""
LEAST_WIDTH = 60


@contextlib.contextmanager
def live_view(say: Say) -> Iterator[tuple[Say, Observer]]:
    """Show a study while it runs; yield what it says its lines to, and what looks on.

    Where there is no terminal that can show a view, `say` itself, and nobody.
    """
    console = _Terminal(stderr=True, highlight=False)
    if not can_show(console):
        yield say, NOBODY
        return
    with LiveView(say, console) as view:
        yield view.say, view


def can_show(console: Console) -> bool:
    """Whether stderr is a terminal with room and characters for a view, and ours to draw on."""
    return (
        sys.stderr.isatty()
        and not console.is_dumb_terminal
        and console.width >= LEAST_WIDTH
        and sys.stderr.encoding.lower().startswith("utf")
        and _is_in_foreground()
    )


class LiveView(Observer):
    """A frame at the bottom of the terminal, and the lines that are said above it.

    Use it as a context manager; outside of it, lines are said as they are.
    """

    owns_terminal = True

    def __init__(self, say: Say, console: Console) -> None:
        """Show a view on a console; lines are formatted and written by `say`."""
        self._say = say
        self._console = console
        self._progress = Progress(since=time.monotonic())
        self._inbox: SimpleQueue[Notice | str | None] = SimpleQueue()
        self._is_up = False
        self._is_blind = False
        self._painter = threading.Thread(target=self._paint, name="live-view", daemon=True)
        self._live = Live(
            get_renderable=self._frame,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # what is said on stderr is then printed above the frame
        )

    def __enter__(self) -> Self:
        self._live.start()
        self._is_up = True
        self._painter.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_up = False
        self._inbox.put(None)
        self._painter.join()
        with contextlib.suppress(Exception):  # its last frame may fail, but it is gone
            self._live.stop()
        while not self._inbox.empty():  # said by another thread at this moment
            self._take(self._inbox.get())

    def say(self, line: str) -> None:
        """Say a line above the frame."""
        if self._is_up:
            self._inbox.put(line)
        else:
            self._say(line)

    def warn(self, text: str) -> None:
        """Say a line from within a signal's handler: a put may be interrupted by another."""
        if self._is_up:
            self._inbox.put(text)
        else:
            super().warn(text)

    def see(self, notice: Notice) -> None:
        """Take what a study tells; it is looked at in the view's own time."""
        if self._is_up:
            self._inbox.put(notice)

    def _paint(self) -> None:
        due = time.monotonic()
        while True:
            try:
                told = self._inbox.get(timeout=max(0.0, due - time.monotonic()))
            except Empty:
                self._refresh()
                due = time.monotonic() + REFRESH_S
                continue
            if told is None:
                return
            self._take(told)

    def _take(self, told: Notice | str | None) -> None:
        if isinstance(told, str):
            self._say(told)
        elif told is not None and not self._is_blind:
            try:
                self._progress = advanced(self._progress, told, time.monotonic())
            except Exception as error:
                self._end_view(error)

    def _refresh(self) -> None:
        if not self._is_blind and _is_in_foreground():
            try:
                self._live.refresh()
            except Exception as error:
                self._end_view(error)

    def _end_view(self, error: Exception) -> None:
        """Go on without a frame: a study is worth more than its picture."""
        self._is_blind = True
        with contextlib.suppress(Exception):
            self._live.stop()
        self._say(f"the live view has ended: {type(error).__name__}: {error}; the study goes on")

    def _frame(self) -> Group:
        width, height = self._console.size
        return frame(self._progress, width=width, height=height, now=time.monotonic())


class _Terminal(Console):
    """A terminal whose cursor stays: a process that is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        return True


def _is_in_foreground() -> bool:
    """Whether this process may draw: behind a shell's `&` another one has the terminal."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:  # a terminal that controls nobody
        return True
