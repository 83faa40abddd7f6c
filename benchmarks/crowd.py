"""A study of the stand-in with many workers on one PostgreSQL server, as a scheduler keeps them up.

Shared by the soak and by the tests of faults. On one machine workers would wait for each other at
the lock of its device: each has a temporary folder of its own here, and so a lock of its own.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from killer import RUN_VARIABLE
from stand_in_child import SECONDS_VARIABLE

from tuner.address import VARIABLE
from tuner.isolation import CHILD_VARIABLE

NAME = "soak"
TUNER = Path(sys.executable).with_name("tuner")
SPACE = ("--num-envs", ",".join(str(16 * n) for n in range(1, 41)),
         "--num-steps", ",".join(str(16 * n) for n in range(1, 26)),
         "--num-minibatches", "1,2,4,8", "--num-epochs", "1,2,4")  # fmt: skip
"""12,000 configs, every one of which divides."""
FLAGS = (*SPACE, "--baseline", "64,64,4,2", "--env-steps", "16384", "--repeat-disturbed", "false",
         "--probe", "false", "--patience", "1000000", "--min-feasible", "1000000")  # fmt: skip
START = ("start", NAME, *FLAGS)
END = 7
"""Exit code of a leader at the end of its study: it has too few trials to export."""
SAID = "said"
"""File in the folder of a place that takes what its processes say."""
APART = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
"""Runs a command where it sees no process of others, as in a container of its own."""
_PAUSE_S = 1.0


class Crowd:
    """The processes of one study, each in a folder of its own under `folder`.

    Attributes:
        token: what every process has in its environment under `killer.RUN_VARIABLE`.
        surprises: lines on processes that ended in a way that nobody asked for.
    """

    def __init__(self, folder: Path, url: str, *, trial_s: float) -> None:
        """Make a crowd; nobody is started yet.

        Args:
            folder: of the study, its workers and their logs.
            url: address of the database.
            trial_s: how long a trial trains.
        """
        self.folder, self.token = folder, secrets.token_hex(8)
        self.surprises: list[str] = []
        self.is_over = threading.Event()
        self._environ = {
            **os.environ,
            VARIABLE: url,
            CHILD_VARIABLE: str(Path(__file__).with_name("stand_in_child.py")),
            SECONDS_VARIABLE: str(trial_s),
            RUN_VARIABLE: self.token,
        }
        self._keepers: list[threading.Thread] = []
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._dismissed = threading.Event()

    def begin(
        self, place: str, arguments: Sequence[str], *, under: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Begin a command at a place, a folder's name; its words go to a file there."""
        home = self.folder / place
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        with (home / SAID).open("ab") as said:
            return subprocess.Popen(
                [*under, str(TUNER), *arguments],
                cwd=home,
                env={**self._environ, "TMPDIR": str(home / "tmp")},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def begin_leader(self, *flags: str) -> subprocess.Popen[bytes]:
        """Start the study."""
        return self.begin("leader", (*START, *flags))

    def said(self, place: str) -> str:
        """Return all that the processes of a place have said."""
        path = self.folder / place / SAID
        return path.read_text(errors="replace") if path.exists() else ""

    def keep_leader(self, *flags: str, under: Sequence[str] = ()) -> None:
        """Keep a leader up until its study ends: `start` at first, then `resume`."""
        self._keep("leader", (*START, *flags), ("resume", NAME), under=under)

    def keep_worker(self, place: str, *, under: Sequence[str] = ()) -> None:
        """Keep a worker up until the study ends."""
        arguments = ("worker", NAME)
        self._keep(place, arguments, arguments, under=under)

    def dismiss(self) -> None:
        """Keep nobody up any more and kill who is still there."""
        self._dismissed.set()
        for process in self._running.values():
            process.kill()
        self.wait()

    def wait(self) -> None:
        """Wait until nobody is kept up: the study has ended, or they were dismissed."""
        for keeper in self._keepers:
            keeper.join()
        self._keepers.clear()

    def _keep(
        self,
        place: str,
        first: Sequence[str],
        then: Sequence[str],
        *,
        under: Sequence[str] = (),
    ) -> None:
        def keep() -> None:
            arguments = first
            while not (self._dismissed.is_set() or self.is_over.is_set()):
                process = self._running[place] = self.begin(place, arguments, under=under)
                if self._dismissed.is_set():
                    process.kill()
                self._judge(place, process.wait())
                arguments = then
                time.sleep(_PAUSE_S)

        keeper = threading.Thread(target=keep, name=place)
        self._keepers.append(keeper)
        keeper.start()

    def _judge(self, place: str, code: int) -> None:
        """Take note of how a process ended."""
        if place == "leader" and code == END:
            self.is_over.set()
            return
        last = "".join(self.said(place).splitlines()[-1:])
        is_killed = code == -signal.SIGKILL or last.startswith(APART[0])
        is_worker = place != "leader"
        # A worker that has not joined yet takes no answer for a wrong address.
        is_refused = code == 8 and not (self.folder / place / "runs" / NAME).exists()
        if not is_killed and not (is_worker and (code == 0 or is_refused)):
            self.surprises.append(f"{place} ended with {code}: {last}")


def can_be_apart() -> bool:
    """Whether this system lets a command be run `APART`."""
    if shutil.which(APART[0]) is None:
        return False
    tried = subprocess.run([*APART, "true"], capture_output=True, check=False)
    return tried.returncode == 0
