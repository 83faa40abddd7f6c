"""The end of a study on the terminal: what was found, the profiles, the table, where time went."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from storage.profile_files import read
from tuner.goal import objective_of
from tuner.profiles import PROFILE_NAMES
from tuner.report.numbers import number
from tuner.report.overview import front_of
from tuner.report.paragraph import print_paragraph
from tuner.report.reading import StudyReading, read_study
from tuner.report.story import expectation, headline, reservations, time_line, without_result

SHOWN = 12
"""Rows of the table of configs."""
WIDE = 72
"""Columns of a terminal on which the whole table fits."""


def print_report(name: str, places: Mapping[str, object]) -> None:
    """Print the report of a study on stdout."""
    study = read_study(name, places)
    console = Console(highlight=False)
    console.print()
    print_paragraph(console, headline(study), style="bold")
    console.print()
    console.print(_configs(study, console.width))
    console.print()
    _print_profiles(study, console)
    for line in (*reservations(study), time_line(study.records)):
        print_paragraph(console, line, indent=2)


def _configs(study: StudyReading, width: int) -> Table:
    """Return the table of configs; on a narrow terminal without what scores are made of."""
    is_wide = width >= WIDE
    is_timed = any(s.goal_score is not None for s in study.summaries)
    learned = ("to target s",) if is_timed else ("quality",)
    more = ("util %", "memory GB") if is_wide else ()
    table = Table(box=None, pad_edge=False)
    for column in ("trial", "config", "env-steps/s", *learned, *more, "score"):
        table.add_column(column, justify="left" if column == "config" else "right", no_wrap=True)
    front, baseline = set(front_of(study)), study.baseline()
    ordered = sorted(study.summaries, key=lambda s: -(objective_of(s) or -1.0))
    shown = [s for s in ordered if s.status == "success"][:SHOWN]
    if baseline is not None and baseline not in shown:
        shown.append(baseline)
    for s in shown:
        extra = (number(s.device_util, ".0f"), number(s.peak_memory_gb, ".3f")) if is_wide else ()
        table.add_row(
            f"{s.trial}*" if s.trial in front else f"{s.trial} ",
            str(s.config),
            number(s.sps, ",.0f"),
            number(s.seconds_to_target, ".3g") if is_timed else number(s.quality_score, ".2f"),
            *extra,
            number(s.final_score, ".3f"),
        )
    left_out = len([s for s in ordered if s.status == "success"]) - len(shown)
    failed = without_result(study.summaries)
    caption = ["* on the Pareto front", "0 is the baseline"]
    if is_timed:
        caption.append("by the seconds of training to the target return")
    if left_out > 0:
        caption.append(f"{left_out} more")
    if failed:
        caption.append(failed)
    table.caption = "; ".join(caption)
    table.caption_justify = "left"
    return table


def _print_profiles(study: StudyReading, console: Console) -> None:
    folder, has_rates = study.config.profiles_folder(study.name), study.config.has_rates
    for name in PROFILE_NAMES:
        path = folder / f"{name}.yaml"
        if not path.exists():
            continue
        profile = read(path)
        numbers = (
            f"num_envs={profile.num_envs} num_steps={profile.num_steps} "
            f"num_minibatches={profile.num_minibatches} num_epochs={profile.num_epochs}"
            + (f" learning_rate={number(profile.learning_rate, '.3g')}" if has_rates else "")
        )
        print_paragraph(console, f"{name}: {numbers}", indent=2, style="bold")
        for told in filter(None, (expectation(profile), profile.reason, str(path))):
            print_paragraph(console, told, label="  ")
    if folder.exists():
        console.print()
