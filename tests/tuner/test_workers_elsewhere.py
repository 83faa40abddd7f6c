"""`tuner worker` with nothing of the leader's but a PostgreSQL server, or a proxy before it.

Trials are those of the stand-in; commands, server and proxy are real.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd import END, NAME, Crowd
from killer import Ledger

from storage.studies import close_storage, load_study, open_storage, set_study_fact
from tests.postgres import PASSWORD, PostgresServer
from tests.storage.proxies import Proxy
from tuner.trials import CLOSING


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    made = PostgresServer()
    made.start()
    yield made
    made.remove()


@pytest.fixture
def url(server: PostgresServer) -> Iterator[str]:
    """The address of a database that holds no study of this name afterwards."""
    text = server.url.render_as_string(hide_password=False)
    yield text
    storage = open_storage(text, create=False)
    storage.delete_study(load_study(storage, NAME)._study_id)
    close_storage(storage)


def run(crowd: Crowd, place: str, *arguments: str) -> int:
    """Run a command at a place to its end; return its exit code."""
    with crowd.begin(place, arguments) as process:
        return process.wait(280)


def begin_study(crowd: Crowd, url: str) -> None:
    """Measure the baseline and one trial, and leave the search open as a killed leader would."""
    process = crowd.begin_leader("--trials", "2")
    assert process.wait(280) == END, crowd.said("leader")
    storage = open_storage(url, create=False)
    for fact in ("ended", CLOSING):
        set_study_fact(load_study(storage, NAME), fact, None)
    close_storage(storage)


@pytest.mark.long
def test_a_worker_needs_nothing_but_the_address(tmp_path: Path, url: str) -> None:
    crowd = Crowd(tmp_path, url, trial_s=0.2)
    begin_study(crowd, url)
    assert run(crowd, "worker", "worker", NAME, "--trials", "4") == 0
    said = crowd.said("worker")
    assert f"worker of {NAME} ended: --trials 4 reached" in said
    assert said.count("\ntrial ") + said.startswith("trial ") == 2
    ledger = Ledger(url, NAME)
    assert ledger.faults() == []
    assert ledger.num_finished == 4
    assert PASSWORD not in said
    files = {path.name for path in (tmp_path / "worker").rglob("*") if path.is_file()}
    assert {"trial-0002.log", "trial-0003.log"} <= files
    assert not {"trials.csv", "config.yaml", "study.db"} & files


@pytest.mark.long
def test_what_a_worker_measures_behind_a_proxy_is_in_the_table_in_the_end(
    tmp_path: Path, url: str
) -> None:
    crowd = Crowd(tmp_path, url, trial_s=0.2)
    begin_study(crowd, url)
    proxy = Proxy(url)
    proxy.start()
    try:
        behind = Crowd(tmp_path, proxy.url, trial_s=0.2)
        assert run(behind, "worker", "worker", NAME, "--trials", "4") == 0, behind.said("worker")
    finally:
        proxy.stop()
    assert run(crowd, "leader", "resume", NAME, "--trials", "5") == END
    said = crowd.said("leader")
    for number in (2, 3):
        assert f"trial {number}: measured behind a proxy, now in the table" in said
    ledger = Ledger(url, NAME)
    assert ledger.faults() == []
    assert ledger.num_finished == 5
