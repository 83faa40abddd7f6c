"""Workers on machines of their own: one is killed, or its connection to the database is cut.

The machines are network namespaces, the database a real PostgreSQL server, the trials those of a
stand-in. Nothing but silence tells a machine that is cut off from one that is dead.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crowd import APART, NAME, Crowd, can_be_apart
from killer import RUN_VARIABLE, Ledger, orphans

from storage.heartbeat import HEARTBEAT_S
from storage.studies import close_storage, load_study, open_storage
from tests.faults.networks import Machine
from tests.faults.workers import wait_for_training, worker_of
from tests.postgres import PostgresServer
from tests.tuner.studies import states
from tests.tuner.trials import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CUT_S = 40.0
"""Longer than two heartbeats, and than a connection may be silent."""
TRIAL_S = 4.0


@pytest.fixture
def machines() -> Iterator[list[Machine]]:
    made = []
    try:
        for number in range(2):
            made.append(Machine(number))
        yield made
    finally:
        for machine in made:
            machine.remove()


@pytest.fixture
def server(machines: list[Machine]) -> Iterator[PostgresServer]:
    made = PostgresServer(networks=[machine.network for machine in machines])
    made.start()
    yield made
    made.remove()


Begin = Callable[[int], Crowd]


@pytest.fixture
def crowds(machines: list[Machine], server: PostgresServer, tmp_path: Path) -> Iterator[Begin]:
    """Those who reach the database as the machine of a number does."""
    made: list[Crowd] = []

    def begin(number: int) -> Crowd:
        url = server.url.set(host=machines[number].address_of_server)
        text = url.render_as_string(hide_password=False)
        made.append(Crowd(tmp_path / str(number), text, trial_s=TRIAL_S))
        return made[-1]

    yield begin
    for crowd in made:
        crowd.dismiss()
        assert orphans(RUN_VARIABLE, crowd.token) == []


@pytest.fixture
def ledger(server: PostgresServer) -> Ledger:
    return Ledger(server.url.render_as_string(hide_password=False), NAME)


def told(ledger: Ledger) -> list[str]:
    """Return the states of all trials."""
    storage = open_storage(ledger.url, create=False)
    try:
        return states(load_study(storage, NAME).get_trials())
    finally:
        close_storage(storage)


def test_a_trial_outlives_the_loss_of_its_connection(
    machines: list[Machine], crowds: Begin, ledger: Ledger
) -> None:
    alone = crowds(0)
    alone.keep_leader("--trials", "3", under=machines[0].under)
    cut = wait_for_training(alone)
    machines[0].cut_off()
    time.sleep(CUT_S)
    machines[0].connect()
    alone.wait()
    said = alone.said("leader")
    assert f": the measurement of trial {cut} waits in " in said
    assert "the database answers again after " in said
    assert alone.surprises == []
    assert ledger.faults() == []
    assert ledger.measured_again == []
    assert told(ledger) == ["COMPLETE"] * 3  # the baseline, and each trial once


def test_what_a_machine_measured_while_it_was_cut_off_is_kept(
    machines: list[Machine], crowds: Begin, ledger: Ledger
) -> None:
    leading, joined = crowds(0), crowds(1)
    leading.keep_leader("--trials", "24", under=machines[0].under)
    wait_for_training(leading)
    joined.keep_worker("worker", under=machines[1].under)
    cut = wait_for_training(joined)
    machines[1].cut_off()
    time.sleep(CUT_S)
    machines[1].connect()
    leading.wait()
    assert f"trial {cut} was cut off: now fail" in leading.said("leader")
    said = joined.said("worker")
    assert f"the measurement of trial {cut} waits in " in said
    assert f"trial {cut} was given to another worker meanwhile" in said
    assert leading.surprises == joined.surprises == []
    assert ledger.faults() == []
    assert ledger.measured_again == [cut]
    assert ledger.seen[cut, 0].status == "success"


def test_a_machine_that_dies_is_noticed_within_two_heartbeats(
    machines: list[Machine], crowds: Begin, ledger: Ledger
) -> None:
    if not can_be_apart():
        pytest.skip("A MACHINE THAT DIES IS NOT TESTED: no process namespace is permitted")
    leading, joined = crowds(0), crowds(1)
    leading.keep_leader("--trials", "8", under=machines[0].under)
    wait_for_training(leading)
    joined.keep_worker("worker", under=[*machines[1].under, *APART])
    lost = wait_for_training(joined)
    process = worker_of(joined)
    process.kill()
    killed = time.monotonic()
    line = f"trial {lost} was cut off: now fail"
    # Whoever looks first says it: the leader, or the worker that was started in the place of it.
    wait_until(lambda: line in leading.said("leader") + joined.said("worker"), within_s=120)
    # Half a second for the line; this machine's load is on top of what the heartbeat promises.
    assert time.monotonic() - killed < 2 * HEARTBEAT_S + 5
    leading.wait()
    assert leading.surprises == joined.surprises == []
    assert ledger.faults() == []
    assert ledger.measured_again == []
    again = [key for key, r in ledger.seen.items() if key[0] > lost and not key[1]
             and _config(r) == _config(ledger.seen[lost, 0])]  # fmt: skip
    assert len(again) == 1


def _config(record: object) -> tuple[object, ...]:
    names = ("num_envs", "num_steps", "num_minibatches", "num_epochs")
    return tuple(getattr(record, name) for name in names)
