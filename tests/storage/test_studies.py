"""Optuna studies in real databases: opening, refusing, long locks, several processes."""

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage

from storage.database import connect, sqlite_url
from storage.errors import (
    InvalidStorageUrl,
    NewerSchema,
    NotADatabase,
    OlderSchema,
    StorageUnavailable,
    StudyExists,
    StudyNotFound,
)
from storage.records import TrialRecord
from storage.schema import META, SCHEMA_VERSION
from storage.studies import (
    close_storage,
    create_study,
    load_study,
    open_storage,
    optuna_faults_of,
    set_study_fact,
    study_facts,
)
from storage.telemetry import Telemetry
from tests.storage.processes import FORK

optuna.logging.set_verbosity(optuna.logging.WARNING)
Opened = Callable[..., RDBStorage]


def _loss(trial: optuna.Trial) -> float:
    return float(trial.suggest_categorical("num_envs", (8, 16, 32)))


def test_a_study_is_found_again_with_its_trials_and_facts(opened: Opened, url: str) -> None:
    study = create_study(opened(url), "demo")
    study.optimize(_loss, n_trials=3)
    set_study_fact(study, "space", {"digest": "abc", "num_envs": [8, 16]})
    set_study_fact(study, "space", {"digest": "def", "num_envs": [8, 16]})
    set_study_fact(study, "device", None)

    again = load_study(opened(url, create=False), "demo")
    assert again.direction == optuna.study.StudyDirection.MAXIMIZE
    assert [trial.number for trial in again.trials] == [0, 1, 2]
    assert study_facts(again) == {"space": {"digest": "def", "num_envs": [8, 16]}, "device": None}


def test_a_fact_must_be_json(opened: Opened, url: str) -> None:
    study = create_study(opened(url), "demo")
    for value in (float("nan"), {1, 2}):
        with pytest.raises(ValueError, match="the fact 'x' must be plain JSON"):
            set_study_fact(study, "x", value)


def test_a_fact_of_a_newer_tuner_is_refused(opened: Opened, url: str) -> None:
    study = create_study(opened(url), "demo")
    study.set_user_attr("tuner:space", {"version": 2, "value": 1})
    with pytest.raises(NewerSchema, match="version 1 or older, but got version 2"):
        study_facts(study)


def test_creating_twice_and_loading_nothing_are_refused(opened: Opened, url: str) -> None:
    storage = opened(url)
    with pytest.raises(StudyNotFound, match="'demo'"):
        load_study(storage, "demo")
    create_study(storage, "demo")
    with pytest.raises(StudyExists, match="tuner resume demo"):
        create_study(storage, "demo")


def test_a_new_study_inherits_no_rows_of_a_deleted_one(
    opened: Opened, url: str, make_record: Callable[..., TrialRecord]
) -> None:
    storage = opened(url)
    create_study(storage, "demo")
    with Telemetry(url) as telemetry:
        telemetry.save("demo", make_record())
        with pytest.raises(StudyExists):
            create_study(storage, "demo")
        assert len(telemetry.records("demo")) == 1
        optuna.delete_study(study_name="demo", storage=storage)
        create_study(storage, "demo")
        assert telemetry.records("demo") == []


def test_a_missing_file_is_made_only_when_asked_and_private(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "demo" / "study.db"
    with pytest.raises(StudyNotFound, match=r"study\.db, but got no file"):
        opened(sqlite_url(path), create=False)
    assert not path.parent.exists()
    opened(sqlite_url(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_journal_is_as_private_as_its_database(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    create_study(opened(sqlite_url(path)), "demo")
    before = os.umask(0)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("DELETE FROM studies")
            journal = path.with_name("study.db-journal")
            assert stat.S_IMODE(journal.stat().st_mode) == 0o600
            writer.execute("ROLLBACK")
    finally:
        os.umask(before)


def test_an_empty_database_holds_no_study(opened: Opened, url: str) -> None:
    if url.startswith("sqlite"):
        sqlite3.connect(url.removeprefix("sqlite:///")).close()
    with pytest.raises(StudyNotFound):
        opened(url, create=False)
    engine = connect(url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize("name", ["a b.db", "50%.db", "what?x=1.db", "{x}.db", "é#&.db"])
def test_any_file_name_will_do(opened: Opened, tmp_path: Path, name: str) -> None:
    opened(sqlite_url(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_no_database_is_refused(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(NotADatabase, match=path.name):
            opened(sqlite_url(path))
    assert (tmp_path / "notes.txt").read_text() == "hello\n"


@pytest.mark.parametrize(
    "bad",
    [
        "mysql://me:hunter22@h/db",
        "hunter22",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql+psycopg://me:hunter22@h",
        "postgresql+psycopg://me:hunter22@h:port/db",
        "postgresql+psycopg2://me:hunter22@h/db",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(
    opened: Opened, bad: str
) -> None:
    with pytest.raises(InvalidStorageUrl, match="--storage must") as caught:
        opened(bad)
    assert "hunter22" not in str(caught.value)


def test_a_wrong_password_is_not_shown(opened: Opened, postgres_url: str) -> None:
    wrong = sa.make_url(postgres_url).set(password="hunter22")
    with pytest.raises(StorageUnavailable, match="authentication failed") as caught:
        opened(wrong.render_as_string(hide_password=False), create=False)
    assert "hunter22" not in str(caught.value)
    assert "tuner:***@127.0.0.1" in str(caught.value)


def _set(url: str, statement: sa.Executable) -> None:
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(statement)
    engine.dispose()


def test_the_schema_of_a_newer_optuna_is_refused(opened: Opened, url: str) -> None:
    known = opened(url).get_head_version()
    _set(url, sa.text("UPDATE alembic_version SET version_num = 'v9.0.0.a'"))
    with pytest.raises(NewerSchema, match=rf"{known}, .* but got schema v9\.0\.0\.a; install"):
        opened(url, create=False)


def test_the_schema_of_an_older_optuna_is_refused_with_the_command_that_helps(
    opened: Opened, url: str
) -> None:
    opened(url)
    _set(url, sa.text("UPDATE alembic_version SET version_num = 'v2.6.0.a'"))
    with pytest.raises(OlderSchema, match=r"v2\.6\.0\.a; upgrade it with `optuna storage upgrade"):
        opened(url, create=False)


def test_the_schema_of_a_newer_tuner_is_refused(opened: Opened, url: str) -> None:
    opened(url)
    _set(url, sa.update(META).values(value=str(SCHEMA_VERSION + 1)))
    words = f"schema {SCHEMA_VERSION} or older, but got schema {SCHEMA_VERSION + 1}"
    with pytest.raises(NewerSchema, match=words):
        opened(url)


HOLD_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(6)
connection.execute("ROLLBACK")
"""


def test_a_write_lock_of_another_process_is_waited_for(
    opened: Opened, tmp_path: Path, make_record: Callable[..., TrialRecord]
) -> None:
    """Optuna's default would have failed the study after five seconds."""
    path = tmp_path / "study.db"
    url = sqlite_url(path)
    study = create_study(opened(url), "demo")
    with (
        Telemetry(url) as telemetry,
        subprocess.Popen(
            [sys.executable, "-c", HOLD_LOCK, str(path)], stdout=subprocess.PIPE
        ) as holder,
    ):
        assert holder.stdout is not None
        holder.stdout.readline()
        start = time.monotonic()
        telemetry.save("demo", make_record())
        study.optimize(_loss, n_trials=1)
        assert time.monotonic() - start > 5.5
        assert len(telemetry.records("demo")) == 1
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]


def test_faults_while_running_are_ours(opened: Opened, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    study = create_study(opened(sqlite_url(path)), "demo")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE trials")
    connection.close()
    with (
        pytest.raises(StorageUnavailable, match=r"study\.db must answer.*no such table"),
        optuna_faults_of(sqlite_url(path)),
    ):
        study.optimize(_loss, n_trials=1)


def _work(url: str, ready: Path) -> None:
    storage = open_storage(url, create=False)
    study = load_study(storage, "demo")
    ready.touch()
    while len(list(ready.parent.glob("ready-*"))) < 2:
        time.sleep(0.001)

    def note_worker(trial: optuna.Trial) -> float:
        trial.set_user_attr(f"worker-{os.getpid()}", True)
        time.sleep(0.2)  # long enough for the other process to come to its turn
        if trial.number >= 12:
            trial.study.stop()
        return _loss(trial)

    study.optimize(note_worker, n_trials=12)
    close_storage(storage)


def test_two_processes_never_take_the_same_queued_trial(
    opened: Opened, url: str, tmp_path: Path
) -> None:
    study = create_study(opened(url), "demo")
    for _ in range(12):
        study.enqueue_trial({"num_envs": 8})
    workers = [FORK.Process(target=_work, args=(url, tmp_path / f"ready-{n}")) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    takers = [len(trial.user_attrs) for trial in study.trials[:12]]
    assert takers == [1] * 12
    assert len({number for trial in study.trials[:12] for number in trial.user_attrs}) == 2
    assert [trial.number for trial in study.trials] == list(range(len(study.trials)))
