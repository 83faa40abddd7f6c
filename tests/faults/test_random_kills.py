"""Kills at random moments of whatever belongs to a study: no finished trial is lost or doubled.

Trials are those of a stand-in that trains nothing, so that most of the time something is saved,
started or ended; everything else is real.
"""

import random
import secrets
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from killer import RUN_VARIABLE, Killer, Ledger, orphans

from storage import overview
from storage.database import sqlite_path
from tests import BENCHMARKS
from tests.tuner.studies import PATIENCE_S, Studies
from tuner.isolation import CHILD_VARIABLE

NAME = "t"
SPACE = ("--num-envs", "8,16,32,64,128,256", "--num-steps", "16,32,64", "--num-minibatches", "2,4",
         "--num-epochs", "1,2,4")  # fmt: skip
FLAGS = (*SPACE, "--baseline", "16,16,2,2", "--env-steps", "16384", "--repeat-disturbed", "false",
         "--probe", "false", "--patience", "1000", "--min-feasible", "999")  # fmt: skip


class Run:
    """A study of the stand-in that is begun again as often as it is killed."""

    def __init__(self, studies: Studies, seed: int) -> None:
        self.studies = studies
        roles = ("leader", "trial", "trial", "spare", "warden")  # most trials are over in no time
        self.killer = Killer(seed, longest_s=1.5, roles=roles)
        self.said = studies.folder / "said"
        self._draw = random.Random(seed)
        self.ledger = Ledger(studies.url(NAME), NAME)
        self.token = secrets.token_hex(8)
        self._variables = {
            CHILD_VARIABLE: str(BENCHMARKS / "stand_in_child.py"),
            "STAND_IN_TRIAL_S": "0.1",
            RUN_VARIABLE: self.token,
        }

    @property
    def exists(self) -> bool:
        """Whether the study was made to the end, so that it can be resumed."""
        path = sqlite_path(self.ledger.url)
        if path is None or not path.exists() or NAME not in overview.study_names(self.ledger.url):
            return False
        return "config" in overview.study_facts(self.ledger.url, NAME)

    def until_the_leader_is_killed(self, most: int) -> None:
        """Run the study under kills until one hits the command itself, the last one in any case.

        Three times in four nobody is killed before the command has begun its work.
        """
        arguments = ("resume", NAME) if self.exists else ("start", NAME, *FLAGS)
        with (
            self.said.open("a") as said,
            self.studies.begin(*arguments, variables=self._variables, said=said) as process,
        ):
            root = psutil.Process(process.pid)
            if self._draw.random() < 0.75:
                self._wait_for_work(process, self.said.stat().st_size)
            while process.poll() is None:
                if len(self.killer.kills) >= most:
                    process.kill()
                self.killer.strike(root)
        # A calibration whose child is killed ends the command with a line.
        assert process.returncode in (-signal.SIGKILL, 1, 2), self.said.read_text()[-2000:]
        assert orphans(RUN_VARIABLE, self.token) == []
        if self.exists:
            self.ledger.see()

    def _wait_for_work(self, process: subprocess.Popen[str], since: int) -> None:
        while process.poll() is None and "\ntrial " not in self.said.read_text()[since:]:
            time.sleep(0.05)

    def to_the_end(self) -> None:
        """Run the study to its end, with nobody killed."""
        wanted = str(self.ledger.num_finished + 2)
        flags = ("resume", NAME) if self.exists else ("start", NAME, *FLAGS)
        with self.studies.begin(*flags, "--trials", wanted, variables=self._variables) as process:
            _, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 7, told
        assert "Traceback" not in self.said.read_text() + told


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("seed", "kills"),
    [(1, 6), *(pytest.param(seed, 10, marks=pytest.mark.long) for seed in range(2, 22))],
)
def test_whoever_is_killed_no_finished_trial_is_lost_or_doubled(
    tmp_path: Path, cache_dir: Path, seed: int, kills: int
) -> None:
    run = Run(Studies(tmp_path, cache_dir), seed)
    while len(run.killer.kills) < kills:
        run.until_the_leader_is_killed(kills)
    run.to_the_end()
    assert run.ledger.faults() == [], run.killer.kills
    assert run.ledger.measured_again == []
    assert run.ledger.num_finished >= 3
