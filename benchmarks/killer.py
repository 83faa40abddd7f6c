"""Random kills of a study's processes, and the proof that they lost nothing.

Shared by the soak and by the tests of faults. Which process is killed, and after how long, comes
from a seed; at what instruction that finds it is chance all the same.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from storage.records import TrialRecord
from storage.recovery import RETRY_OF, UNFINISHED_STATUSES
from storage.studies import close_storage, load_study, open_storage
from storage.telemetry import Telemetry
from tuner.aggregate import hardware_of
from tuner.closing import CUT_OFF, MOST_DEATHS
from tuner.warden import MARK, PATIENCE_S

ROLES = ("leader", "worker", "trial", "spare", "warden")
FINISHED = ("COMPLETE", "PRUNED")
RUN_VARIABLE = "TUNER_TEST_RUN"
"""Set for a study of which nothing may be left: see `orphans`."""
ABSENCE_S = 0.5
"""How long a role is waited for that no process has at the moment."""
ORPHANS_S = 2 * PATIENCE_S
"""How long orphans may take to end by themselves."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: what the process was, its id, and how long after the one before it came."""

    role: str
    pid: int
    wait_s: float


class Killer:
    """Kills processes of a study, chosen at random.

    Args:
        seed: of all choices.
        longest_s: longest wait before a kill; waits are uniform from 0.
        roles: which processes may be killed, the more often the more often they stand there.
        others: roles that are killed by a call, which returns a process id, or None if it is dead
            already.
        spares_others: whether nobody is killed where nobody has the role that was drawn; else
            another is. A busy machine would start the study's processes more slowly than they die.
        on_victim: is given the role and the process just before it is killed.
    """

    def __init__(
        self,
        seed: int,
        *,
        longest_s: float = 5.0,
        roles: Sequence[str] = ROLES,
        others: Mapping[str, Callable[[], int | None]] | None = None,
        spares_others: bool = False,
        on_victim: Callable[[str, psutil.Process], None] = lambda role, process: None,
    ) -> None:
        self._draw = random.Random(seed)
        self._longest_s = longest_s
        self._roles = tuple(roles)
        self._others = dict(others or {})
        self._spares_others = spares_others
        self._on_victim = on_victim
        self.kills: list[Kill] = []

    def strike(self, root: psutil.Process) -> Kill | None:
        """Wait for a random time and kill a process of the tree under `root`, that one included.

        The role is drawn first and waited for, so that a rare one is killed as often; None where
        nobody is left to kill.
        """
        wait_s = self._draw.uniform(0, self._longest_s)
        role = self._draw.choice(self._roles)
        pick = self._draw.random()
        time.sleep(wait_s)
        if role in self._others:
            pid = self._others[role]()
            return None if pid is None else self._note(role, pid, wait_s)
        deadline = time.monotonic() + ABSENCE_S
        while not (family := self._family(root))[role] and time.monotonic() < deadline:
            time.sleep(0.05)
        others = [] if self._spares_others else [p for group in family.values() for p in group]
        candidates = family[role] or others
        if not candidates:
            return None
        victim = candidates[int(pick * len(candidates))]
        found = next(name for name, group in family.items() if victim in group)
        try:
            self._on_victim(found, victim)
            victim.kill()
        except psutil.NoSuchProcess:
            return None
        return self._note(found, victim.pid, wait_s)

    def _note(self, role: str, pid: int, wait_s: float) -> Kill:
        self.kills.append(Kill(role, pid, wait_s))
        return self.kills[-1]

    def counts(self) -> dict[str, int]:
        """Return how many processes of each role were killed."""
        return dict(Counter(kill.role for kill in self.kills))

    def _family(self, root: psutil.Process) -> dict[str, list[psutil.Process]]:
        """Return the processes that may be killed, by role, each in the order of their ids."""
        family: dict[str, list[psutil.Process]] = {role: [] for role in self._roles}
        try:
            members = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return family
        for process in sorted(members, key=lambda p: p.pid):
            if (role := role_of(process)) in family:
                family[role].append(process)
        return family


def role_of(process: psutil.Process) -> str | None:
    """Return what a process of a study is, None for what a trial has started or one just gone."""
    try:
        command, is_of_trial = process.cmdline(), MARK in process.environ()
        if "--events-fd" in command:
            log = os.readlink(f"/proc/{process.pid}/fd/1")
            return "spare" if Path(log).name.startswith("spare-") else "trial"
    except (OSError, psutil.Error):
        return None
    if any(Path(word).name == "warden.py" for word in command):
        return "warden"
    if is_of_trial or not command or Path(command[0]).name == "unshare":
        return None
    if "worker" in command:
        return "worker"
    return "leader" if {"start", "resume"} & set(command) else None


def _is_deadly(records: Mapping[tuple[int, int], TrialRecord], record: TrialRecord) -> bool:
    """Whether so many processes died of a record's config that it is rightly given up."""
    cut_off = [r for r in records.values() if r.reason == CUT_OFF]
    return sum(hardware_of(r) == hardware_of(record) for r in cut_off) >= MOST_DEATHS


def orphans(variable: str, value: str, within_s: float = ORPHANS_S) -> list[psutil.Process]:
    """Return the processes that outlive a study which was run with a variable of its own.

    They are given `within_s` to end by themselves.
    """
    deadline = time.monotonic() + within_s
    while True:
        left = [process for process in psutil.process_iter() if _has(process, variable, value)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _has(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return process.environ().get(variable) == value
    except (psutil.Error, OSError):
        return False


@dataclass(slots=True)
class Ledger:
    """What a study must never lose: every measurement that was seen finished.

    `see` is called between kills, `faults` at the end, when nothing runs any more.

    Attributes:
        measured_again: trials that were given to another worker although they had been measured:
            their worker was killed before the database, which was away, had the result. It came
            later from the journal on the worker's disk, and is kept beside that of the retry.
    """

    url: str
    name: str
    seen: dict[tuple[int, int], TrialRecord] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    measured_again: list[int] = field(default_factory=list)

    def see(self) -> None:
        """Read the table; what was in it before must still be, unchanged.

        What a measurement told that waited in a journal may take the place of `interrupted`, and a
        calibration that was cut off before the baseline became trial 0 begins anew.
        """
        now = self._read()[0]
        for key, record in self.seen.items():
            if record.status != "interrupted" and now.get(key) != record:
                self.lost.append(f"measurement {key} was {record}, is {now.get(key)}")
        self.seen = now

    def faults(self) -> list[str]:
        """Return what is wrong, in words: nothing is if every finished trial is there once."""
        self.see()
        records, states, retried = self._read()
        found = list(self.lost)
        own = {trial: record for (trial, replicate), record in records.items() if not replicate}
        for number, state in enumerate(states):
            record = own.get(number)
            if state in ("RUNNING", "WAITING"):
                found.append(f"trial {number} is {state}")
            is_given_up = state == "PRUNED" and record is not None and _is_deadly(records, record)
            is_measured = record is not None and record.status != "interrupted"
            if state in FINISHED and not (is_measured or is_given_up):
                found.append(f"trial {number} is {state}, but our table has {record}")
            if state == "FAIL" and record is not None and record.status not in UNFINISHED_STATUSES:
                if number in retried:
                    self.measured_again.append(number)
                else:
                    found.append(f"trial {number} is FAIL, but our table has {record.status}")
        unknown = sorted(set(own) - set(range(len(states))))
        found += [f"trial {number} is in our table, but not in Optuna's" for number in unknown]
        return found + self.doubled()

    def doubled(self) -> list[str]:
        """Name the configs that were measured to the end by two trials, as of `faults`."""
        finished = Counter(
            (r.num_envs, r.num_steps, r.num_minibatches, r.num_epochs)
            for (trial, replicate), r in self.seen.items()
            if not replicate
            and r.status not in UNFINISHED_STATUSES
            and trial not in self.measured_again
        )
        return [f"{config} was measured {n} times" for config, n in finished.items() if n > 1]

    @property
    def num_finished(self) -> int:
        """How many trials have a measurement that counts."""
        return sum(
            not replicate and record.status not in UNFINISHED_STATUSES
            for (_, replicate), record in self.seen.items()
        )

    def _read(self) -> tuple[dict[tuple[int, int], TrialRecord], list[str], set[int]]:
        """Return our records, Optuna's states, and which trials were queued again.

        Nothing counts before the baseline is told.
        """
        storage = open_storage(self.url, create=False)
        try:
            trials = load_study(storage, self.name).get_trials(deepcopy=False)
        finally:
            close_storage(storage)
        if not trials:
            return {}, [], set()
        states = [trial.state.name for trial in trials]
        attrs = [trial.system_attrs for trial in trials]
        retried = {int(each[RETRY_OF]) for each in attrs if RETRY_OF in each}
        with Telemetry(self.url, create=False) as telemetry:
            records = telemetry.records(self.name)
        return {(r.trial, r.replicate): r for r in records}, states, retried
