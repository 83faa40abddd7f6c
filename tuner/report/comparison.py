"""What `tuner compare` found, on the terminal: a table where it fits, else a block for each."""

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from storage.profile import Profile
from tuner.comparability import UNTOLD, Differences, differences, figure
from tuner.comparison import Against, Comparison, Contrast, is_same_measurement
from tuner.profile_sources import Source
from tuner.report.numbers import ABSENT, number
from tuner.report.paragraph import print_paragraph
from tuner.terminal import printable
from tuner.workload import hardware_config

MOST_NAMED = 6
"""Differences of one kind that are written out."""
MOST_CHARACTERS = 120
GAP = 2
"""Spaces between two columns."""
RESTS_ON = {"repeats": "the repeats in a profile's study", "profile": "the profile's own spread"}
SPEED_WORDS = {"higher": "faster", "lower": "slower"}
QUALITY_WORDS = {"higher": "learns better", "lower": "learns worse"}


def print_comparison(found: Comparison) -> None:
    """Print the profiles side by side, then what of each can be told against the first.

    Those that rest on the same measurements are shown once.
    """
    console = Console(highlight=False)
    shown, same = _distinct(found.sources)
    _print_once(console, "hardware", shown, hardware_of)
    _print_once(console, "workload", shown, workload_of)
    console.print()
    _print_side_by_side(console, shown)
    remarks = [
        *(f"{', '.join(same[s.name])}: the same as {_line(s.name)}" for s in shown if same[s.name]),
        *(f"{_line(s.name)}: {_line(s.profile.notes)}" for s in shown if s.profile.notes),
    ]
    for line in [*remarks, ""] if remarks else []:
        print_paragraph(console, line, indent=2)
    for against in found.against_first:
        if against.source in shown:
            _print_against(console, shown[0], against)
            console.print()
    for line in _footnotes(found):
        print_paragraph(console, line)


def _distinct(sources: Sequence[Source]) -> tuple[list[Source], dict[str, list[str]]]:
    """Return the sources whose figures are shown, and the names of the others by theirs."""
    shown: list[Source] = []
    same: dict[str, list[str]] = {}
    for source in sources:
        twin = next((s for s in shown if _shows_the_same(s, source)), None)
        if twin is not None:
            same[twin.name].append(_line(source.name))
        else:
            shown.append(source)
            same[source.name] = []
    return shown, same


def _shows_the_same(first: Source, other: Source) -> bool:
    is_equal = first.profile.expected_sps == other.profile.expected_sps
    return is_equal and is_same_measurement(first, other, differences(first, other))


def hardware_of(profile: Profile) -> str:
    """Return a profile's hardware in a few words."""
    facts = profile.hardware
    cores, memory = figure(facts, "cores"), figure(facts, "memory_gb")
    words = [_line(facts["name"])] if facts.get("name") is not None else []
    words += [f"{cores:g} cores"] if cores is not None else []
    words += [f"{memory:.0f} GB"] if memory is not None else []
    return ", ".join(words) or UNTOLD


def workload_of(profile: Profile) -> str:
    """Return what a profile was measured on, in a few words."""
    facts = profile.workload
    if facts.get("env") is None:
        return UNTOLD
    params = facts.get("env_params")
    items = params.items() if isinstance(params, dict) else ()
    words = [" ".join([str(facts["env"]), *(f"{name}={value}" for name, value in items)])]
    if facts.get("trainer") is not None:
        words.append(f"trainer {facts['trainer']}")
    elif facts.get("network") is not None:
        shape = (f"network {facts['network']}", facts.get("activation"))
        words += [str(word) for word in shape if word is not None]
    return _line(", ".join(words))


def _rows(profiles: Sequence[Profile]) -> list[tuple[str, ...]]:
    """Return the label and the cells of every row; one that no profile fills is left out."""
    sources = [_line(p.util_source or ABSENT) for p in profiles]
    table: list[tuple[str, list[str]]] = [
        ("config", [str(hardware_config(p)) for p in profiles]),
        ("learning rate", [number(p.learning_rate, ".3g") for p in profiles]),
        ("env-steps/s", [number(p.expected_sps, ",.0f") for p in profiles]),
        ("95 % interval", [_interval(p.expected_sps_ci95) for p in profiles]),
        ("quality", [number(p.quality_score, ".3f") for p in profiles]),
        ("memory GB", [number(p.expected_memory_gb, ".3f") for p in profiles]),
        ("utilisation %", [number(p.expected_device_util, ".0f") for p in profiles]),
        ("  measured by", sources if len(set(sources)) > 1 else []),
        ("score", [number(p.final_score, ".3f") for p in profiles]),
        ("study", [_line(p.measured.get("study") or ABSENT) for p in profiles]),
        ("trial", [number(figure(p.measured, "trial"), ".0f") for p in profiles]),
        ("measurements", [number(figure(p.measured, "replicates"), ".0f") for p in profiles]),
        ("date (UTC)", [_date(p) for p in profiles]),
    ]
    return [(label, *cells) for label, cells in table if any(cell != ABSENT for cell in cells)]


def _print_side_by_side(console: Console, shown: Sequence[Source]) -> None:
    """Print as many columns as fit beside the first, again and again; blocks if none does."""
    names, rows = [_line(s.name) for s in shown], _rows([s.profile for s in shown])
    label, *widths = (
        max(len(cell) for cell in column) for column in zip(("", *names), *rows, strict=True)
    )
    room = console.width - label - GAP - widths[0]
    if room < 0 or any(width + GAP > room for width in widths[1:]):
        for index, name in enumerate(names, 1):
            console.print(name, style="bold", markup=False)
            for row in rows:
                console.print(f"  {row[0]:<{label}}  {row[index]}", markup=False)
        console.print()
        return
    others = list(range(1, len(names)))
    is_shown = False
    while others or not is_shown:
        fitting = 1
        while fitting < len(others) and sum(widths[i] + GAP for i in others[: fitting + 1]) <= room:
            fitting += 1
        _print_table(console, names, rows, [0, *others[:fitting]])
        console.print()
        others, is_shown = others[fitting:], True


def _print_table(
    console: Console, names: Sequence[str], rows: Sequence[tuple[str, ...]], columns: Sequence[int]
) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    table.add_column("", no_wrap=True)
    for index in columns:
        table.add_column(Text(names[index]), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row[0], *(Text(row[1 + index]) for index in columns))
    console.print(table)


def _print_once(
    console: Console, what: str, shown: Sequence[Source], told: Callable[[Profile], str]
) -> None:
    """Print a fact that all share in one line, else one line for each."""
    words = [told(source.profile) for source in shown]
    if len(set(words)) == 1:
        print_paragraph(console, words[0], label=f"{what}  ")
        return
    for source, fact in zip(shown, words, strict=True):
        print_paragraph(console, f"{what} of {_line(source.name)}: {fact}", indent=2)


def _print_against(console: Console, first: Source, against: Against) -> None:
    title = f"{_line(against.source.name)} against {_line(first.name)}"
    console.print(title, style="bold", markup=False)
    found = against.differences
    versions = f"versions differ: {_listed(found.versions)}"
    told = [
        *((line, "bold red") for line in _loud(found)),
        *([(versions, "")] if found.versions else []),
        (_ratio(against.throughput), ""),
        (_difference(against.quality), ""),
    ]
    for line, style in told:
        print_paragraph(console, line, label="  ", indent=4, style=style)


def _loud(differences: Differences) -> list[str]:
    kinds = (
        ("HARDWARE DIFFERS", differences.hardware),
        ("WORKLOAD DIFFERS", differences.workload),
        ("QUALITY WAS JUDGED OTHERWISE", differences.judging),
    )
    return [f"{title}: {_listed(found)}" for title, found in kinds if found]


def _ratio(found: Contrast) -> str:
    if found.value is None:
        return f"env-steps/s: {_why_none(found)}"
    if found.low is None:
        return f"env-steps/s: {found.value:.2f} ×; {found.reason}"
    bounds = (
        f"{found.low:.2f}–{found.high:.2f}"
        if found.high is not None
        else f"{found.low:.2f} or more"
    )
    words = SPEED_WORDS.get(found.verdict, found.verdict)
    return f"env-steps/s: {found.value:.2f} × ({bounds}): {words}"


def _difference(found: Contrast) -> str:
    if found.value is None:
        return f"quality: {_why_none(found)}"
    if found.low is None or found.high is None:
        return f"quality: {found.value:+.3f}; {found.reason}"
    words = QUALITY_WORDS.get(found.verdict, found.verdict)
    return f"quality: {found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f}): {words}"


def _why_none(found: Contrast) -> str:
    verdict = "" if found.verdict in ("same", "unknown") else f"{found.verdict}: "
    return f"{verdict}{_line(found.reason or '')}"


def _footnotes(found: Comparison) -> list[str]:
    rests = {errors.rests_on for errors in found.errors}
    lines = [
        "Intervals are 95 %: in the table for one more process, below it for the ratio or the "
        f"difference, from {' or '.join(RESTS_ON[r] for r in RESTS_ON if r in rests)}."
    ]
    if len({str(source.profile.measured.get("study")) for source in found.sources}) > 1:
        lines.append("A score is relative to the baseline of its own study.")
    return lines


def _interval(bounds: tuple[float, float] | None) -> str:
    return ABSENT if bounds is None else f"{bounds[0]:,.0f}–{bounds[1]:,.0f}"


def _date(profile: Profile) -> str:
    date = profile.measured.get("date")
    return _line(date)[:16].replace("T", " ") if isinstance(date, str) else ABSENT


def _listed(items: Sequence[str]) -> str:
    more = f"; and {len(items) - MOST_NAMED} more" if len(items) > MOST_NAMED else ""
    return "; ".join(map(_line, items[:MOST_NAMED])) + more


def _line(text: Any) -> str:
    """Return a text that anyone may have written, in one line that is not too long."""
    words = printable(" ".join(str(text).split()))
    return words if len(words) <= MOST_CHARACTERS else words[: MOST_CHARACTERS - 1] + "…"
