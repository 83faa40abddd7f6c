"""Waiting for real databases: which faults may pass, for how long, and what is said."""

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage import database, overview
from storage.database import connect, hold_writers_off, passing_fault, sqlite_url
from storage.errors import StorageUnavailable
from storage.patience import GivenUp, Patience, once_it_answers
from storage.records import TrialRecord
from storage.telemetry import Telemetry
from tests.storage.disks import largest_file

Make = Callable[..., TrialRecord]


class Lines(list[str]):
    """What the user was told."""

    def say(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def test_a_fault_that_passes_is_told_once_and_waited_for(path: Path, make_record: Make) -> None:
    url, told = sqlite_url(path), Lines()
    patience = Patience(url, say=told.say)
    patience.waiting = lambda: "trial 7 waits"
    pauses = 0
    with Telemetry(url, patience=patience) as telemetry:
        full = largest_file(0)

        def mend_at_third() -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 3:
                full.__exit__(None, None, None)

        patience.on_pause = mend_at_third
        full.__enter__()
        telemetry.save("demo", make_record())
        assert telemetry.records("demo") == [make_record()]
    assert pauses == 3
    assert told == [
        "the database does not answer (disk I/O error): trial 7 waits, trying again",
        told[1],
    ]
    assert told[1].startswith("the database answers again after ")


def test_a_client_that_stands_still_in_a_transaction_does_not_hold_up_the_others(
    postgres_url: str, make_record: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "HELD_S", 1)
    with Telemetry(postgres_url) as telemetry:
        engine = connect(postgres_url)
        with engine.connect() as stopped:
            hold_writers_off(stopped)
            telemetry.save("demo", make_record())
            with pytest.raises(sa.exc.DBAPIError) as ended:
                stopped.execute(sa.text("SELECT 1"))
        engine.dispose()
        assert telemetry.records("demo") == [make_record()]
    assert passing_fault(ended.value, postgres_url) is not None


def test_waiting_has_an_end_and_names_fault_and_remedy(path: Path, make_record: Make) -> None:
    url = sqlite_url(path)
    patience = Patience(url, say=lambda line: None, limit_s=0.5)
    with Telemetry(url, patience=patience) as telemetry, largest_file(0):
        words = r"must answer, but got: disk I/O error, for \d s; .*resume"
        with pytest.raises(GivenUp, match=words):
            telemetry.save("demo", make_record())
    assert not isinstance(GivenUp(), Exception)  # Optuna would tell a failed trial


def test_who_asks_to_stop_waits_seconds_not_minutes(path: Path, make_record: Make) -> None:
    url = sqlite_url(path)
    patience = Patience(url, say=lambda line: None, is_stopped=lambda: True)
    with Telemetry(url, patience=patience) as telemetry, largest_file(0):
        began = time.monotonic()
        with pytest.raises(GivenUp):
            telemetry.save("demo", make_record())
    assert 2 < time.monotonic() - began < 20


def test_a_fault_that_cannot_pass_comes_through_at_once(path: Path, make_record: Make) -> None:
    url, told = sqlite_url(path), Lines()
    with Telemetry(url, patience=Patience(url, say=told.say)) as telemetry:
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE tuner_records")
        connection.close()
        with pytest.raises(StorageUnavailable, match="no such table"):
            telemetry.records("demo")
    assert told == []


def test_errors_of_the_program_come_through(tmp_path: Path) -> None:
    def divide() -> float:
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        Patience(sqlite_url(tmp_path / "a"), say=print).call(divide)


def test_nothing_waits_where_waiting_would_disturb(path: Path, make_record: Make) -> None:
    url, told = sqlite_url(path), Lines()
    patience = Patience(url, say=told.say)
    with (
        Telemetry(url, patience=patience) as telemetry,
        largest_file(0),
        patience.without_waiting(),
        pytest.raises(OSError, match="I/O error"),
    ):
        telemetry.save("demo", make_record())
    assert told == []


def test_no_password_is_told(postgres_url: str) -> None:
    wrong = sa.make_url(postgres_url).set(password="hunter22").render_as_string(False)
    told = Lines()
    engine = connect(wrong)
    with pytest.raises(GivenUp) as caught:
        Patience(wrong, say=told.say, limit_s=0.2).call(lambda: engine.connect().close())
    engine.dispose()
    assert "authentication failed" in told[0]
    assert "hunter22" not in f"{told} {caught.value}"


def test_only_the_thread_that_asks_for_it_does_not_wait() -> None:
    """The heartbeat must not keep a study from waiting."""
    patience = Patience(sqlite_url("study.db"), say=lambda line: None)
    tries: list[int] = []

    def attempt() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise sa.exc.OperationalError("SELECT", {}, Exception("the connection was lost"))
        return "here"

    found: list[str] = []
    with patience.without_waiting():
        thread = threading.Thread(target=lambda: found.append(patience.call(attempt)))
        thread.start()
        thread.join()
        tries.clear()
        with pytest.raises(sa.exc.OperationalError):
            patience.call(attempt)
    assert found == ["here"]


def test_a_database_that_answered_before_is_waited_for_when_it_is_opened(
    path: Path, make_record: Make
) -> None:
    url, told = sqlite_url(path), Lines()
    attempts = 0
    with Telemetry(url) as telemetry:

        def save() -> str:
            nonlocal attempts
            attempts += 1
            with largest_file(0) if attempts < 3 else nullcontext():
                telemetry.save("demo", make_record())
            return "saved"

        assert once_it_answers(url, save, say=told.say) == "saved"
    assert attempts == 3
    assert told[0].endswith("(disk I/O error): the study waits, trying again")


def test_a_server_that_lets_nobody_in_is_not_waited_for(postgres_url: str) -> None:
    for part in ({"password": "wrong"}, {"database": "none"}, {"username": "nobody"}):
        wrong = sa.make_url(postgres_url).set(**part).render_as_string(hide_password=False)
        told = Lines()
        with pytest.raises(StorageUnavailable, match="must answer, but got"):
            once_it_answers(wrong, lambda url=wrong: overview.study_names(url), say=told.say)
        assert told == []
