"""One frame of the live view: from where a study stands to lines of the terminal's width.

Lines of text and no tables: a frame is drawn every second beside a trial that is measured.
"""

import statistics
from collections import Counter
from collections.abc import Iterator

from rich.console import Group
from rich.text import Text

from storage.records import STATUSES, TrialRecord
from tuner.address import hide_in_text
from tuner.aggregate import ConfigSummary, hardware_of
from tuner.report.numbers import clock, duration, number, sparkline
from tuner.report.progress import Progress, Running
from tuner.stopping import counted
from tuner.terminal import printable

LABEL_CELLS = 10
BAR_CELLS = 12
MOST_LAST = 6
"""Rows of the last trials, as far as the terminal is high enough."""
WIDE = 100
"""Columns from which on there is room for reservations."""

Part = str | tuple[str, str]
"""Text, or text with its style."""

_QUESTIONS = {
    "probe": "asking what the device is",
    "peaks": "measuring what the device reaches",
    "preflight": "tracing environment and updates",
    "random": "measuring the random policy",
    "fit": "finding what fits in memory",
}
_COLUMNS = (5, 9, 13)
"""Cells of score, quality and env-steps/s."""


def frame(progress: Progress, *, width: int, height: int, now: float) -> Group:
    """Return what the live view shows of a study at the monotonic time `now`.

    Args:
        progress: where the study stands.
        width: columns of the terminal; no line is wider.
        height: its rows; the last trials get what the rest leaves of them.
        now: for durations, on the clock of `progress`.
    """
    lines = [_headline(progress, width, now), *_search(progress, width, now)]
    lines += _present(progress, width, now)
    if progress.baseline is not None:
        lines += _table(progress, width, height - len(lines) - 2)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    # The cursor waits in the line below: whatever ends this process, the shell goes on there.
    return Group(*lines, Text())


def _row(label: str, *parts: Part) -> Text:
    return Text.assemble((f"{label:<{LABEL_CELLS}}", "dim"), *parts)


def _headline(progress: Progress, width: int, now: float) -> Text:
    elapsed = clock(now - progress.since)
    name = progress.study or "opening the study"
    line = Text(f"{name} on {progress.device}" if progress.device else name, style="bold")
    line.truncate(width - len(elapsed) - 1, overflow="ellipsis", pad=True)
    return line.append(f" {elapsed}")


def _search(progress: Progress, width: int, now: float) -> Iterator[Text]:
    """Return how far the search is, and how long it still takes."""
    stood = progress.stood
    if stood is None:
        return
    records = list(progress.records.values())
    trials = counted(records)
    known = {record.trial for record in trials}
    others = [r for r in records if r.replicate == 0 and r.trial not in known]
    wanted = f", {stood.untried} configs untried" if stood.trials is None else f" of {stood.trials}"
    line = _row("trials", f"{len(trials)}{wanted}")
    for words, some in ((": ", trials), ("; not counted: ", others)):
        ways = Counter(record.status for record in some)
        parts = [f"{ways[status]} {status}" for status in STATUSES if ways[status]]
        line.append(words + ", ".join(parts) if parts else "")
    if stood.running:
        line.append(f"; {stood.running} running on other workers")
    yield line
    if progress.estimate is not None and (left_s := progress.estimate.left_s(now)) > 0:
        how, sooner = (
            ("estimated from", "; a search without gain ends sooner")
            if width >= WIDE
            else ("from", "")
        )
        yield _row(
            "left",
            (f"about {clock(left_s)}", "bold"),
            f", {how} {progress.estimate.num_timed} trials ({progress.estimate.until})",
            sooner,
        )


def _present(progress: Progress, width: int, now: float) -> Iterator[Text]:
    """Return what is being done at this moment."""
    running = progress.running
    if running is None:
        if progress.question is not None:
            yield _row("now", (_QUESTIONS.get(progress.question, progress.question), "bold"))
        return
    what = f"trial {running.trial}" if running.trial else "baseline"
    if running.replicate:
        what += f", measurement {running.replicate + 1}"
    yield _row("now", f"{what}: {running.config}")
    phase_s = max(0.0, now - running.phase_since)
    yield _row("phase", (running.phase, "bold"), f" for {duration(phase_s)}")
    if running.env_steps is not None:
        share = min(1.0, running.env_steps / running.total_steps)
        speed = f", {number(running.sps, ',.0f')} env-steps/s"
        yield _row("env-steps", *_bar(share), f" {100 * share:.0f} %", speed)
    if running.returns:
        line = sparkline(running.returns)
        yield _row("return", (line, "cyan"), f" {running.returns[-1]:.4g}")
    recent = running.recent(now)
    utils = [s.util for s in recent if s.util is not None]
    if utils:
        util = statistics.fmean(utils)
        yield _row("util", *_bar(util / 100), f" {util:.0f} %")
    if progress.device_kind == "cpu":
        held = recent[0].memory_bytes if recent else None
        yield from _memory(running, held, "resident size", width)
    else:
        yield from _memory(running, running.held_bytes, "allocator", width)


def _memory(running: Running, held: int | None, source: str, width: int) -> Iterator[Text]:
    """Return what a trial holds of what it may, in GB, and what was predicted."""
    if running.limit_bytes is None:
        return
    limit, parts = f"{running.limit_bytes / 1e9:.3g} GB", list[Part]()
    if held is None:
        parts.append(f"limit {limit}")
    else:
        parts += [*_bar(held / running.limit_bytes), f" {_in_gb(held)} of {limit}"]
    if running.predicted_bytes is not None:
        parts.append(f", {_in_gb(running.predicted_bytes)} predicted")
    if held is not None and width >= WIDE:
        parts.append(f" (held: {source})")
    yield _row("memory", *parts)


def _in_gb(size: int) -> str:
    return f"{size / 1e9:.3g}" if size >= 1e6 else "under 0.001"


def _bar(share: float) -> tuple[Part, Part]:
    full = round(BAR_CELLS * min(1.0, max(0.0, share)))
    return ("█" * full, "cyan"), ("░" * (BAR_CELLS - full), "dim")


def _table(progress: Progress, width: int, room: int) -> Iterator[Text]:
    """Return the best against the baseline, and the last trials in at most `room` rows."""
    best, baseline = progress.best, progress.baseline
    if baseline is None:
        return
    yield Text()
    score, quality, speed = _COLUMNS
    heads = f"{'score':>{score}}{'quality':>{quality}}{'env-steps/s':>{speed}}  config"
    yield _row("", (heads, "dim"))
    is_beaten = best is not None and best.trial != baseline.trial
    if best is not None and is_beaten:
        gain = _gain(best, baseline, width)
        yield _row("best", (f"{_numbers(best)}  {best.config}{gain}", "green"))
    style, words = ("green", " best") if best is not None and not is_beaten else ("", "")
    yield _row("baseline", (f"{_numbers(baseline)}  {baseline.config}{words}", style))
    last = [record for record in progress.records.values() if record.trial > 0]
    for record in last[: -1 - min(MOST_LAST, max(0, room - 4)) : -1]:
        yield _last(record, width)


def _gain(best: ConfigSummary, baseline: ConfigSummary, width: int) -> str:
    if best.sps is None or not baseline.sps:
        return ""
    words = " the baseline's env-steps/s" if width >= WIDE else ""
    return f" {best.sps / baseline.sps:.2f} ×{words}"


def _last(record: TrialRecord, width: int) -> Text:
    label = f"trial {record.trial}" if not record.replicate else f"{record.trial} again"
    if record.status == "success":
        return _row(label, f"{_numbers(record)}  {hardware_of(record)}")
    reason = f": {_one_line(record.reason)}" if record.reason else ""
    is_wide = width >= WIDE
    why = Text(record.status if is_wide else record.status + reason, "red")
    why.truncate(sum(_COLUMNS), overflow="ellipsis", pad=True)
    rest = f"  {hardware_of(record)}{reason if is_wide else ''}"
    return _row(label).append(why).append(rest)


def _one_line(text: str) -> str:
    """Return what a trial's process said as it may stand on a terminal."""
    return " ".join(printable(hide_in_text(text)).split())


def _numbers(measured: ConfigSummary | TrialRecord) -> str:
    score, quality, speed = _COLUMNS
    return (
        f"{number(measured.final_score, '.3f'):>{score}}"
        f"{number(measured.quality_score, '.2f'):>{quality}}"
        f"{number(measured.sps, ',.0f'):>{speed}}"
    )
