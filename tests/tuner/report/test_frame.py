"""Frames of the live view, from what a real trial told, on terminals of two widths."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tests.tuner.measurements import failure, record
from tests.tuner.report.told import EVENTS, RECORDS, event, progress, stood
from tuner.observer import Asked, Kept, Notice
from tuner.report.frame import MOST_LAST, frame
from tuner.report.numbers import clock
from tuner.report.progress import Progress

NOW = event("block").t


def lines(known: Progress, *, width: int = 60, height: int = 40, now: float = NOW) -> list[str]:
    """Return what a terminal of that size shows."""
    console = Console(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(frame(known, width=width, height=height, now=now))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue().splitlines()
    assert max(map(len, shown)) <= width
    return shown


def row(shown: list[str], label: str) -> str:
    return next(line for line in shown if line.startswith(label))[10:]


@pytest.mark.parametrize("width", [60, 120])
def test_a_frame_shows_the_search_the_trial_the_device_and_the_best(width: int) -> None:
    shown = lines(progress("block"), width=width)
    assert shown[0].startswith("demo on Some Processor")
    assert shown[0].endswith(f" {clock(300 + NOW - EVENTS[0].t)}")  # since the command began
    assert row(shown, "trials") == "3 of 10: 3 success; not counted: 1 predicted_oom"
    left = r"about 2:\d\d, (estimated )?from 3 trials \(--trials 10\)"
    assert re.match(left, row(shown, "left"))
    assert row(shown, "now") == "trial 5: 16x16 mb2 ep2"
    assert row(shown, "phase").startswith("measuring for ")
    assert re.match(r"█{12} 100 %, [\d,]+ env-steps/s$", row(shown, "env-steps"))
    assert re.match(r"[▁▂▃▄▅▆▇█]{2,32} \S+$", row(shown, "return"))
    assert row(shown, "util") == "██████████░░ 80 %"
    assert re.match(r"[█░]{12} 0\.313 of \S+ GB, under 0\.001 predicted", row(shown, "memory"))
    assert row(shown, "best").startswith("0.612     0.50      150,000  128x64 mb4 ep4 1.50 ×")
    assert row(shown, "baseline") == "0.550     0.50      100,000  64x64 mb4 ep4"
    assert row(shown, "trial 2") == "0.550     0.50      100,000  192x64 mb4 ep4"
    assert "predicted_oom" in row(shown, "trial 3")


def test_what_is_not_known_is_not_shown() -> None:
    shown = lines(progress("ready"), now=NOW + 10.0)
    labels = {line[:10].strip() for line in shown}
    assert labels.isdisjoint({"env-steps", "return", "util", "memory"})
    assert row(shown, "phase").startswith("starting")


def test_a_study_that_is_opened_shows_what_it_asks() -> None:
    shown = lines(Progress(since=NOW))
    assert [line.split() for line in shown if line] == [["opening", "the", "study", "0:00"]]
    asked = progress("done", more=[Asked("random")])
    assert row(lines(asked), "now") == "measuring the random policy"


def test_a_low_terminal_has_fewer_of_the_last_trials() -> None:
    more: list[Notice] = [Kept(failure(number, "oom")) for number in range(6, 20)]
    known = progress("block", more=more)
    high, low = lines(known, height=40), lines(known, height=14)
    assert sum(line.startswith("trial ") for line in high) == MOST_LAST
    assert next(line for line in high if line.startswith("trial ")).startswith("trial 19")
    assert len(low) <= 14
    assert row(low, "best")


def test_what_a_process_said_cannot_reach_the_terminal_raw() -> None:
    reason = "it said \x1b[2J\nand postgresql://me:secret@host/db"
    said = replace(failure(9, "crashed"), reason=reason)
    shown = "\n".join(lines(progress("block", more=[Kept(said)]), width=120))
    assert "\x1b" not in shown
    assert "secret" not in shown
    assert r"it said \x1b[2J and postgresql" in shown


def test_a_baseline_that_nothing_beats_is_the_best() -> None:
    worse = record(1, duration=10.0, final_score=0.4)
    shown = lines(progress("block", more=[stood([*RECORDS[:2], worse])]))
    assert row(shown, "baseline") == "0.550     0.50      100,000  64x64 mb4 ep4 best"
    assert not [line for line in shown if line.startswith("best")]
