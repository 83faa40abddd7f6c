"""The live view on a real pseudo-terminal."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

import pytest

from tests.screen import Screen
from tests.tuner.report.told import event, notices
from tests.tuner.studies import PATIENCE_S, Studies
from tuner.bench import Say
from tuner.commands.shared import say
from tuner.interrupts import Interrupts
from tuner.observer import NOBODY, Heard, Observer
from tuner.protocol import Event
from tuner.report import live
from tuner.report.live import live_view

WIDTH = 80
HIDE_CURSOR = "\x1b[?25l"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|9[0-7])")


@dataclass
class Terminal:
    """A pseudo-terminal: a program writes to `end`, and `output` is what it wrote."""

    end: TextIO
    _chunks: list[bytes] = field(default_factory=list)
    _screen: Screen = field(default_factory=lambda: Screen(WIDTH))
    _num_shown: int = 0

    @property
    def output(self) -> str:
        return b"".join(self._chunks).decode(errors="ignore")

    @property
    def text(self) -> str:
        """What a user sees now."""
        output = _whole(self.output)
        self._screen.feed(output[self._num_shown :])
        self._num_shown = len(output)
        return self._screen.text

    def wait_for(self, *words: str, patience_s: float = 20.0) -> str:
        """Return what a user sees once it has all these words."""
        deadline = time.monotonic() + patience_s
        while not all(word in (text := self.text) for word in words):
            assert time.monotonic() < deadline, text
            time.sleep(0.02)
        return text

    def is_left_with(self, text: str) -> bool:
        """Whether a user sees nothing else once everything has come."""
        deadline = time.monotonic() + 20.0
        while self.text != text and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.text == text

    def read(self, descriptor: int) -> None:
        """Take what is written until the other end is closed."""
        with contextlib.suppress(OSError):
            while chunk := os.read(descriptor, 1 << 16):
                self._chunks.append(chunk)


def _whole(output: str) -> str:
    """Leave out an escape sequence that has only begun."""
    return re.sub(r"\x1b(\[[?\d;]*)?$", "", output)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8", buffering=1) as end:
        made = Terminal(end)
        reader = threading.Thread(target=made.read, args=(ours,))
        reader.start()
        yield made
    reader.join()
    os.close(ours)


@contextlib.contextmanager
def viewed(terminal: Terminal) -> Iterator[tuple[Say, Observer]]:
    """Show a view on a terminal in the place of this process's stderr."""
    with contextlib.redirect_stderr(terminal.end), live_view(say) as view:
        yield view


@pytest.fixture
def stderr(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that is drawn on quickly."""
    monkeypatch.setattr(live, "REFRESH_S", 0.05)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    return terminal


def test_lines_are_said_above_the_frame_and_alone_are_left(stderr: Terminal) -> None:
    with viewed(stderr) as (tell, observer):
        tell("first line")
        for notice in notices("block"):
            observer.see(notice)
        stderr.wait_for("trial 5: 16x16 mb2 ep2")
        tell("second line")
        shown = stderr.wait_for("second line", "baseline")
        assert shown.startswith("first line\nsecond line\ndemo on Some Processor")
        assert "\nphase     measuring for " in shown
    assert stderr.is_left_with("first line\nsecond line")
    assert HIDE_CURSOR not in stderr.output  # a process that is killed could not show it again
    assert COLOUR.search(stderr.output)


def test_no_color_is_heeded(stderr: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with viewed(stderr) as (_, observer):
        for notice in notices("block"):
            observer.see(notice)
        stderr.wait_for("env-steps")
    assert not COLOUR.search(stderr.output)


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("COLUMNS", "59")])
def test_a_terminal_that_cannot_show_a_view_gets_plain_lines(
    stderr: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with viewed(stderr) as (tell, observer):
        assert (tell, observer) == (say, NOBODY)


def test_a_file_gets_plain_lines() -> None:
    with live_view(say) as (tell, observer):
        assert (tell, observer) == (say, NOBODY)


def test_a_signal_is_answered_above_the_frame(stderr: Terminal) -> None:
    with viewed(stderr) as (_, observer), Interrupts(warn=observer.warn) as interrupts:
        for notice in notices("block"):
            observer.see(notice)
        stderr.wait_for("phase")
        signal.raise_signal(signal.SIGINT)
        shown = stderr.wait_for("interrupted", "baseline")
        assert shown.startswith("interrupted: the running trial ends after its block\ndemo on")
        assert interrupts.count == 1
    assert stderr.is_left_with("interrupted: the running trial ends after its block")


def test_an_exception_leaves_the_terminal_clean(stderr: Terminal) -> None:
    def fail() -> None:
        with viewed(stderr) as (tell, observer):
            for notice in notices("block"):
                observer.see(notice)
            stderr.wait_for("phase")
            tell("the last words")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert stderr.is_left_with("the last words")


def test_a_fault_of_the_view_ends_the_view_alone(stderr: Terminal) -> None:
    with viewed(stderr) as (tell, observer):
        for notice in notices("warm"):
            observer.see(notice)
        stderr.wait_for("phase")
        observer.see(Heard(Event("block", event("block").t, {})))
        tell("the study goes on")
        shown = stderr.wait_for("\nthe study goes on")
    assert shown.startswith("the live view has ended: KeyError: ")
    assert "phase" not in shown


@pytest.mark.long
def test_a_study_on_a_terminal_is_seen_at_work_and_leaves_its_lines(
    small: Studies, terminal: Terminal
) -> None:
    variables = {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": "40"}
    command = ("resume", "small", "--trials", "4")
    with small.begin(*command, variables=variables, said=terminal.end) as process:
        seen = set()
        while process.poll() is None:
            seen |= set(re.findall(r"^(?:left|phase|return|best|trial \d)\b", terminal.text, re.M))
            time.sleep(0.2)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (0, 7), terminal.text
    assert {"left", "phase", "return", "trial 1"} <= seen
    assert "env-steps/s" in out
    said = terminal.wait_for("search ended")
    assert re.search(r"^trial 1: \d+x\d+ mb2 ep2\n  score ", said, re.MULTILINE)
    assert not re.search(r"^(phase|now|left) ", said, re.MULTILINE)
    assert HIDE_CURSOR not in terminal.output


@pytest.mark.long
def test_a_study_that_is_killed_leaves_a_terminal_to_go_on_with(
    small: Studies, terminal: Terminal
) -> None:
    variables = {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "LINES": "40"}
    command = ("resume", "small", "--trials", "4")
    with small.begin(*command, variables=variables, said=terminal.end) as process:
        terminal.wait_for("phase", "baseline", patience_s=PATIENCE_S)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert HIDE_CURSOR not in terminal.output
    assert Screen(WIDTH).feed(terminal.output).is_at_line_start
