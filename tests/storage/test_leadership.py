"""One leader at a time, on a real server; a file needs nothing of the kind."""

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.database import sqlite_url
from storage.errors import AlreadyLed, StorageUnavailable
from storage.leadership import only_leader

LEAD = """
import sys, time
from storage.leadership import only_leader
with only_leader(sys.argv[1], "s"):
    print("leads", flush=True)
    time.sleep(600)
"""


def test_a_second_leader_is_refused_until_the_first_is_killed(postgres_url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAD, postgres_url], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "leads\n"
        with pytest.raises(AlreadyLed, match="tuner worker s"), only_leader(postgres_url, "s"):
            pass
        with only_leader(postgres_url, "another study"):
            pass
        other.kill()
        other.wait()
    with only_leader(postgres_url, "s"), pytest.raises(AlreadyLed), only_leader(postgres_url, "s"):
        pass


def test_a_leader_whose_server_forgot_it_asks_again(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")

    def forget() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    with only_leader(postgres_url, "s") as make_sure:
        make_sure()
        forget()
        make_sure()
        with pytest.raises(AlreadyLed), only_leader(postgres_url, "s"):
            pass
        forget()
        with only_leader(postgres_url, "s"), pytest.raises(AlreadyLed):
            make_sure()
    engine.dispose()


def test_a_server_that_does_not_answer_is_told_so() -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:9/none"
    with pytest.raises(StorageUnavailable), only_leader(nowhere, "s"):
        pass


def test_a_file_is_led_by_whoever_holds_its_folder(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "study.db")
    with only_leader(url, "s"), only_leader(url, "s"):
        pass
