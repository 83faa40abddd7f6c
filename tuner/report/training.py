"""A training on the terminal: a bar while it runs, lines where no terminal is, then the result."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tuner.report.numbers import duration, number
from tuner.report.paragraph import print_paragraph
from tuner.training import Status
from tuner.training_result import Trained

LINE_S = 10.0
"""Least time between two lines where there is no bar."""


class TrainingView:
    """Shows how far a training is, on stderr: a bar on a terminal, a line now and then elsewhere.

    Use it as a context manager, and give `show` every block.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        """Give lines to `say` where there is no terminal."""
        self._say = say
        self._shown_at = -LINE_S
        self._progress: Progress | None = None
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("{task.percentage:>3.0f}%"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True, highlight=False),
            )
            self._task = self._progress.add_task("training", total=None, figures="compiling")

    def __enter__(self) -> "TrainingView":
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, status: Status) -> None:
        """Show where the training stands."""
        figures = (
            f"return {number(status.mean_return, '.4g')}, {status.sps:,.0f} env-steps/s, "
            f"{duration(status.eta_s)} left"
        )
        if self._progress is not None:
            self._progress.update(
                self._task,
                completed=min(status.env_steps, status.total_steps),
                total=status.total_steps,
                figures=figures,
            )
            return
        is_last = status.env_steps >= status.total_steps
        if is_last or time.monotonic() - self._shown_at >= LINE_S:
            self._shown_at = time.monotonic()
            share = min(1.0, status.env_steps / status.total_steps)
            self._say(f"{share:4.0%} {status.env_steps:,} env-steps, {figures}")


def print_trained(trained: Trained) -> None:
    """Print achieved against expected on stdout."""
    console = Console(highlight=False)
    for line in lines_of(trained):
        print_paragraph(console, line, indent=2)


def lines_of(trained: Trained) -> list[str]:
    """Return the result in lines."""
    numbers = (
        f"num_envs={trained.num_envs} num_steps={trained.num_steps} "
        f"num_minibatches={trained.num_minibatches} num_epochs={trained.num_epochs}"
    )
    went_on = trained.resumed_after_update
    since = "" if went_on is None else f", this time from update {went_on:,} on"
    lines = [
        f"{trained.profile}: {numbers}",
        f"trained {trained.env_steps:,} env-steps in {trained.updates:,} updates{since}: "
        f"{duration(trained.train_s)}, and {duration(trained.compile_s)} of compiling",
        _throughput(trained),
        _returned(trained),
    ]
    if trained.quality_score is not None:
        expected = trained.expected_quality_score
        told = "" if expected is None else f", {expected:.2f} in the profile"
        lines.append(
            f"quality of the final policy: {trained.quality_score:.2f}{told}. "
            f"{trained.quality_reason}"
        )
    lines.append(f"policy: {trained.checkpoint}; metrics: {trained.metrics}")
    return lines


def _throughput(trained: Trained) -> str:
    achieved = f"throughput: {number(trained.sps, ',.0f')} env-steps/s in the steady state"
    if trained.expected_sps is None:
        return f"{achieved}; the profile expects none"
    ci95 = trained.expected_sps_ci95
    spread = f" ({ci95[0]:,.0f}–{ci95[1]:,.0f})" if ci95 else ""
    expected = f"{achieved}, expected {trained.expected_sps:,.0f}{spread}"
    if trained.verdict is None:
        return f"{expected}: not comparable, {'; '.join(trained.not_comparable)}"
    return f"{expected}: {trained.verdict}"


def _returned(trained: Trained) -> str:
    error = "" if trained.return_se is None else f" ± {trained.return_se:.2g}"
    line = f"evaluation: mean return {number(trained.mean_return, '.4g')}{error}"
    if trained.best_return is not None:
        line += f", best {trained.best_return:.4g}"
    if trained.expected_mean_return is not None:
        line += f"; {trained.expected_mean_return:.4g} in the profile"
        if trained.expected_after_env_steps is not None:
            line += f" after {trained.expected_after_env_steps:,} env-steps"
    return line
