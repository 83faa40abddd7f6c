"""Real studies for tests: the `tuner` command in a runs folder of its own."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
from optuna.trial import FrozenTrial

from storage import overview
from storage.csv_file import COLUMNS
from storage.database import sqlite_url
from storage.records import TrialRecord
from storage.studies import close_storage, load_study, open_storage
from storage.telemetry import Telemetry
from tuner.space import HardwareConfig

TUNER = Path(sys.executable).with_name("tuner")
SPACE = ("--num-envs", "8,16", "--num-steps", "16,32", "--num-minibatches", "2",
         "--num-epochs", "2")  # fmt: skip
"""Four configs, of 128, 256, 256 and 512 env-steps."""
WORKLOAD = ("--env-steps", "16384", "--network", "16", "--env-param", "obs_dim=8",
            "--repeat-disturbed", "false", "--probe", "false")  # fmt: skip
"""Small and quick, and measured as often whatever else the machine does."""
BASELINE = ("--baseline", "16,16,2,2")
SMALL = (*SPACE, *WORKLOAD, *BASELINE)
PATIENCE_S = 280
"""Longest that a command is waited for; only a loaded machine comes near it."""


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


class Studies:
    """The studies under `folder`/runs, started and read as a user would."""

    def __init__(self, folder: Path, cache_dir: Path) -> None:
        self.folder = folder
        self._cache_dir = cache_dir
        # The lock of the device is in the temporary folder: the tests wait for nobody's study.
        self._locks = folder / "tmp"
        self._locks.mkdir(parents=True, exist_ok=True)

    def copy_to(self, folder: Path) -> "Studies":
        """Return the same studies in another folder."""
        shutil.copytree(self.folder / "runs", folder / "runs")
        return Studies(folder, self._cache_dir)

    def begin(
        self,
        *arguments: str,
        fault: str = "",
        under: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        said: IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Begin a command, with its output on pipes; to be used as a context manager.

        `under` is the start of another command line, which runs it; `variables` are added to its
        environment; `said` is a file that takes its progress in place of a pipe.
        """
        return subprocess.Popen(
            [*under, TUNER, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "TMPDIR": str(self._locks),
                "TUNER_TEST_FAULT": fault,
                **(variables or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said or subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, fault: str = "") -> Ended:
        """Run a command to its end."""
        with self.begin(*arguments, fault=fault) as process:
            try:
                out, err = process.communicate(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                kill_tree(process.pid)
                raise
        return Ended(process.returncode, out, err)

    def start_arguments(self, name: str, *flags: str) -> tuple[str, ...]:
        """Return the arguments of a `start` that uses the shared cache."""
        return ("start", name, *flags, "--cache-dir", str(self._cache_dir))

    def start(self, name: str, *flags: str, fault: str = "") -> Ended:
        """Start a study and wait for its end."""
        return self.run(*self.start_arguments(name, *flags), fault=fault)

    def resume(self, name: str, *flags: str, fault: str = "") -> Ended:
        """Resume a study and wait for its end."""
        return self.run("resume", name, *flags, fault=fault)

    def url(self, name: str) -> str:
        """Return the address of a study's database."""
        return sqlite_url(self.folder / "runs" / name / "study.db")

    def records(self, name: str) -> list[TrialRecord]:
        """Return our table."""
        with Telemetry(self.url(name), create=False) as telemetry:
            return telemetry.records(name)

    def record(self, name: str, trial: int) -> TrialRecord:
        """Return the record of a trial's own measurement."""
        return next(r for r in self.records(name) if (r.trial, r.replicate) == (trial, 0))

    def trials(self, name: str) -> list[FrozenTrial]:
        """Return Optuna's trials."""
        storage = open_storage(self.url(name), create=False)
        try:
            return load_study(storage, name).get_trials()
        finally:
            close_storage(storage)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what is stored on the study."""
        return overview.study_facts(self.url(name), name)

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return trials.csv."""
        with (self.folder / "runs" / name / "trials.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            assert tuple(reader.fieldnames or ()) == COLUMNS
            return list(reader)


def states(trials: list[FrozenTrial]) -> list[str]:
    """Return the names of Optuna's states, in the order of the trials."""
    return [trial.state.name for trial in trials]


def is_infeasible(trial: FrozenTrial) -> bool:
    """Whether the sampler was told that the config cannot work."""
    return trial.constraints["feasible"] > 0


def config_of(record: TrialRecord) -> HardwareConfig:
    """Return what a record is of."""
    return HardwareConfig(
        record.num_envs,
        record.num_steps,
        record.num_minibatches,
        record.num_epochs,
        record.learning_rate,
    )


def wait_for_line(process: subprocess.Popen[str], words: str) -> str | None:
    """Read the command's progress up to a line with `words` in it; None if it ends before."""
    assert process.stderr is not None
    return next((line for line in process.stderr if words in line), None)


def kill_tree(pid: int) -> None:
    """Kill a process and every process that it has started, and wait until they are gone."""
    parent = psutil.Process(pid)
    parent.suspend()  # or it would go on while its children are looked for
    family = [parent, *parent.children(recursive=True)]
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family[1:], timeout=30)
