"""Four workers on one PostgreSQL study while whoever belongs to it is killed: what is lost?

Trials are those of a stand-in that trains nothing; all else is real. Killed at random, from a seed,
are the leader, workers, trial processes, spares, wardens and the database server, which comes back
after up to eight seconds. With `--curve` nobody is killed: it counts what a trial of five seconds
costs beside its training as workers are added.
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from crowd import APART, FLAGS, NAME, Crowd, can_be_apart
from killer import RUN_VARIABLE, Killer, Ledger, orphans
from overhead import measure_curve
from postgres_server import PostgresServer, missing_programs
from ppo_document import deliver, facts, parser_of, say, this_device
from recoveries import Recoveries

from storage import overview
from storage.errors import StorageError

OFTEN = {"leader": 1, "worker": 2, "trial": 4, "spare": 2, "warden": 2, "database": 1}
"""How often each role is killed beside the others."""
TRIAL_S = 0.2
OUTAGE_S = 8.0
"""Longest absence of the database."""
ATTEMPTS = 5
"""Times that the server is started after a kill, should it not come up."""
LOOK_S = 60.0
"""Time between two looks at the table, and two lines."""
MORE = 8
"""Trials beyond those that were finished when time ran out, to end the study with."""


class Outages:
    """Kills the database server and starts it again a while later."""

    def __init__(self, server: PostgresServer, seed: int, on_end: Callable[[], None]) -> None:
        self._server, self._draw, self._on_end = server, random.Random(seed), on_end
        self._healer: threading.Timer | None = None

    def begin(self) -> int | None:
        """Kill the server; return its process id, None while it is away already."""
        if self._healer is not None and self._healer.is_alive():
            return None
        pid = self._server.kill()
        self._healer = threading.Timer(self._draw.uniform(0, OUTAGE_S), self._end)
        self._healer.start()
        return pid

    def wait(self) -> None:
        """Wait until the server is back."""
        if self._healer is not None:
            self._healer.join()

    def _end(self) -> None:
        for _ in range(ATTEMPTS):
            with suppress(RuntimeError):  # it did not come up within a minute
                self._server.start()
                break
        self._on_end()


def soak(folder: Path, server: PostgresServer, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the study under kills to its end; return what was found."""
    url = server.url.render_as_string(hide_password=False)
    crowd, ledger = Crowd(folder, url, trial_s=TRIAL_S), Ledger(url, NAME)
    recoveries = Recoveries(url, NAME)
    outages = Outages(server, arguments.seed, recoveries.forget)
    killer = Killer(
        arguments.seed,
        longest_s=arguments.longest,
        roles=[role for role, times in OFTEN.items() for _ in range(times)],
        others={"database": outages.begin},
        spares_others=True,
        on_victim=recoveries.note,
    )
    apart = APART if can_be_apart() else ()
    began = time.monotonic()
    try:
        crowd.keep_leader("--trials", str(arguments.trials))
        _wait_for_trials(url, crowd, 2)
        for number in range(1, arguments.workers):
            crowd.keep_worker(f"worker-{number}", under=apart if number % 2 else ())
        with recoveries:
            _kill_until_the_end(crowd, killer, ledger, until=began + 60 * arguments.minutes)
            outages.wait()
        is_whole = crowd.is_over.is_set()
        if is_whole:
            crowd.wait()
    finally:
        crowd.dismiss()
    if not is_whole:
        _conclude(crowd, ledger)
    left = orphans(RUN_VARIABLE, crowd.token)
    faults = ledger.faults()
    doubled = ledger.doubled()
    return {
        "kills": len(killer.kills),
        "finished": ledger.num_finished,
        "lost": len(faults) - len(doubled),
        "doubled": len(doubled),
        "measured_again": ledger.measured_again,
        "recovered_s": recoveries.summary(),
        "orphans": len(left),
        "kills_by_role": killer.counts(),
        "faults": faults,
        "surprises": crowd.surprises,
        "reached_all_trials": is_whole,
        "wall_s": time.monotonic() - began,
        "apart": bool(apart),
    }


def _wait_for_trials(url: str, crowd: Crowd, number: int) -> None:
    """Wait until a study has begun so many trials."""
    while True:
        with suppress(StorageError):
            if sum(overview.counts(url, NAME).values()) >= number:
                return
        if crowd.surprises:
            raise SystemExit(f"the study must begin, but got: {crowd.surprises}")
        time.sleep(0.5)


def _kill_until_the_end(crowd: Crowd, killer: Killer, ledger: Ledger, *, until: float) -> None:
    looked = time.monotonic()
    while not crowd.is_over.is_set() and time.monotonic() < until:
        killer.strike(psutil.Process())
        if time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            with suppress(StorageError):
                ledger.see()
            say(f"{len(killer.kills)} kills, {ledger.num_finished} trials: {killer.counts()}")


def _conclude(crowd: Crowd, ledger: Ledger) -> None:
    """Run the study to an end with nobody killed, a few trials after those that are finished."""
    ledger.see()
    trials = str(ledger.num_finished + MORE)
    code = crowd.begin("leader", ("resume", NAME, "--trials", trials)).wait()
    crowd.surprises += [] if code == 7 else [f"the last resume ended with {code}"]


def table(found: dict[str, Any]) -> str:
    """Return the figures of a soak, one a line."""
    roles = ", ".join(f"{count} {role}" for role, count in sorted(found["kills_by_role"].items()))
    recovered = found["recovered_s"]
    lines = [
        f"{found['kills']} kills in {found['wall_s'] / 60:.0f} minutes: {roles}",
        f"{found['finished']} finished trials, {found['lost']} lost, {found['doubled']} doubled, "
        f"{found['orphans']} orphans; {len(found['measured_again'])} measured once more, because "
        "the result waited on the disk of a killed worker",
        f"a dead worker's trial was given up after {recovered['median']} s (median), "
        f"{recovered['largest']} s (largest) of {recovered['number']}; {recovered['interrupted']} "
        "more fell together with an outage of the database",
    ]
    lines += [f"fault: {line}" for line in found["faults"]]
    return "\n".join(lines + [f"surprise: {line}" for line in found["surprises"]])


def main() -> None:
    """Soak, or measure the curve, and deliver what was found."""
    parser = parser_of(__doc__)
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=4, help="with the leader")
    parser.add_argument("--minutes", type=float, default=60.0, help="longest time under kills")
    parser.add_argument("--longest", type=float, default=6.0, help="seconds between two kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--curve", action="store_true", help="the cost of a trial instead")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.minutes, arguments.longest = 60, 1.0, 8.0
    if missing := missing_programs():
        raise SystemExit(f"PostgreSQL must be installed, but got no {', '.join(missing)} on PATH")
    document = facts(this_device()) | {"flags": " ".join(FLAGS)}
    server = PostgresServer(is_durable=True, connections=500 if arguments.curve else 100)
    try:
        server.start()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            if arguments.curve:
                found, text = measure_curve(Path(folder), server, is_quick=arguments.quick)
                document |= found
            else:
                document |= soak(Path(folder), server, arguments)
                text = table(document)
    finally:
        server.remove()
    deliver(document, text, arguments)


if __name__ == "__main__":
    main()
