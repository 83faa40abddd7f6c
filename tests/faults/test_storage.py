"""A study whose database is locked, read-only, full, restarted or gone while a trial runs.

However it ends, every finished trial is in our table and in Optuna's exactly once.
"""

import errno
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from crowd import END, NAME, Crowd
from killer import Ledger
from stand_in_child import SECONDS_VARIABLE

from storage import csv_file, overview
from storage.recovery import record_of
from storage.studies import close_storage, load_study, open_storage
from storage.telemetry import Telemetry
from tests import BENCHMARKS
from tests.postgres import PostgresServer
from tests.tuner.studies import PATIENCE_S, SMALL, Studies, states, wait_for_line
from tests.tuner.trials import wait_until
from tuner.isolation import CHILD_VARIABLE

pytestmark = pytest.mark.timeout(600)

RESUME = ("resume", "small", "--trials", "2")
"""Runs trial 1 and ends with the exit code 7, since two configs are too few to export."""
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Runs a command as a root whom the modes of files concern."""


def end_of(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a command and return what else it said."""
    return process.communicate(timeout=PATIENCE_S)[1]


def wait_for_file(path: Path) -> None:
    """Wait until a file is there: a trial's log is once its measurement has begun."""
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def require_told_once(studies: Studies, name: str, url: str, trials: int) -> None:
    """See that each trial was measured once and that both tables and the CSV file agree."""
    with Telemetry(url, create=False) as telemetry:
        records = telemetry.records(name)
    storage = open_storage(url, create=False)
    told = load_study(storage, name).get_trials()
    close_storage(storage)
    assert states(told) == ["COMPLETE"] * trials
    own = [r for r in records if r.trial > 0]
    assert [(r.trial, r.replicate) for r in own] == [(n, 0) for n in range(1, trials)]
    assert [record_of(trial) for trial in told[1:]] == own
    for trial, record in zip(told[1:], own, strict=True):
        if record.final_score is not None:
            assert trial.value == record.final_score
        else:  # a monitor that a loaded machine gave no time; its utilisation is filled in
            assert record.util_reason
            assert trial.value is not None
            assert 0 <= trial.value <= 1
    folder = studies.folder / "runs" / name
    lines = (folder / "trials.csv").read_text().splitlines()
    assert lines[0].split(",") == list(csv_file.COLUMNS)
    assert len(lines) == 1 + len(records)
    assert list(folder.glob("*journal*")) == []


@pytest.mark.long
def test_a_lock_of_another_process_that_outlasts_the_busy_timeout(small: Studies) -> None:
    database = small.folder / "runs" / "small" / "study.db"
    with (
        small.begin(*RESUME) as process,
        closing(sqlite3.connect(database, isolation_level=None)) as other,
    ):
        wait_for_file(database.with_name("logs") / "trial-0001.log")
        other.execute("BEGIN IMMEDIATE")
        line = wait_for_line(process, "the database does not answer")
        assert line is not None
        assert "(database is locked): the measurement of trial 1 waits in " in line
        assert Path(line.split(" waits in ")[1].split(",")[0]).name.startswith("journal-")
        other.execute("ROLLBACK")
        assert "the database answers again after " in end_of(process)
    assert process.returncode == 7
    require_told_once(small, "small", small.url("small"), 2)


@pytest.mark.long
def test_files_that_become_read_only_and_take_no_journal_either(small: Studies) -> None:
    folder = small.folder / "runs" / "small"
    with small.begin(*RESUME, under=WITHOUT_RIGHTS if os.getuid() == 0 else ()) as process:
        assert wait_for_line(process, "trial 1:")
        (folder / "study.db").chmod(0o444)
        folder.chmod(0o555)
        line = wait_for_line(process, "the measurement of trial 1 waits in memory only")
        folder.chmod(0o755)
        (folder / "study.db").chmod(0o600)
        assert line is not None, process.stderr
        assert "the database does not answer (" in line
        assert "the database answers again after " in end_of(process)
    assert process.returncode == 7
    require_told_once(small, "small", small.url("small"), 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB: a study and its page fit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("A FULL DISK IS NOT TESTED: mount is not permitted")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Write a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017


def test_a_full_disk(small_disk: Path, cache_dir: Path) -> None:
    studies, filler = Studies(small_disk, cache_dir), small_disk / "filler"
    arguments = studies.start_arguments("t", *SMALL, "--trials", "2", "--min-feasible", "99")
    stand_in = {CHILD_VARIABLE: str(BENCHMARKS / "stand_in_child.py"), SECONDS_VARIABLE: "1"}
    with studies.begin(*arguments, variables=stand_in) as process:
        assert wait_for_line(process, "trial 1:")
        fill(filler)
        line = wait_for_line(process, "the database does not answer")
        filler.unlink()
        assert line is not None
        assert "full" in line or "I/O error" in line
        assert "waits in memory only" in line
        assert "the database answers again after " in end_of(process)
    assert process.returncode == 7
    require_told_once(studies, "t", studies.url("t"), 2)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that a test may stop and start."""
    made = PostgresServer()
    made.start()
    yield made
    made.remove()


@pytest.mark.long
def test_a_server_that_is_stopped_and_started(studies: Studies, server: PostgresServer) -> None:
    url = server.url.render_as_string(hide_password=False)
    flags = ("--storage", url, "--trials", "3", "--min-feasible", "99")
    with studies.begin(*studies.start_arguments("t", *SMALL, *flags)) as process:
        assert wait_for_line(process, "trial 1:")
        wait_for_file(studies.folder / "runs" / "t" / "logs" / "trial-0001.log")
        server.stop()
        line = wait_for_line(process, "the measurement of trial 1 waits in ")
        assert line is not None
        assert "s3cret" not in line
        process.send_signal(signal.SIGINT)
        told = end_of(process)
    assert process.returncode == 8, told
    assert "Traceback" not in told
    assert "s3cret" not in told
    assert "go on" in told or "goes on" in told
    (journal,) = (studies.folder / "runs" / "t").glob("journal-*")
    server.start()
    assert overview.counts(url, "t")["running"] == 1
    logs = sorted((studies.folder / "runs" / "t" / "logs").glob("trial-0001*"))

    with studies.begin("resume", "t", *flags) as process:
        assert wait_for_line(process, "trial 1: its measurement, which waited, is saved")
        assert wait_for_line(process, "trial 2:")
        assert not journal.exists()
        wait_for_file(studies.folder / "runs" / "t" / "logs" / "trial-0002.log")
        server.stop()
        assert wait_for_line(process, "the measurement of trial 2 waits in ")
        server.start()
        assert "the database answers again after " in end_of(process)
    assert process.returncode == 7
    require_told_once(studies, "t", url, 3)
    assert sorted((studies.folder / "runs" / "t" / "logs").glob("trial-0001*")) == logs


@pytest.mark.long
def test_who_goes_on_with_a_study_while_the_server_restarts_waits_for_it(
    tmp_path: Path, server: PostgresServer
) -> None:
    crowd = Crowd(tmp_path, server.url.render_as_string(hide_password=False), trial_s=0.1)
    with crowd.begin_leader("--trials", "1") as leader:
        assert leader.wait(PATIENCE_S) == END, crowd.said("leader")
    server.stop()
    # Nobody has reached a study from this place: the address may as well be a wrong one.
    with crowd.begin("new", ("worker", NAME)) as worker:
        assert worker.wait(PATIENCE_S) == 8
    with crowd.begin("leader", ("resume", NAME, "--trials", "2")) as leader:
        wait_until(lambda: "the study waits, trying again" in crowd.said("leader"))
        server.start()
        assert leader.wait(PATIENCE_S) == END, crowd.said("leader")
    assert Ledger(server.url.render_as_string(hide_password=False), NAME).faults() == []
