"""A study that the tuner of schema 1 wrote, brought up to date with a copy kept."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from optuna.storages import RDBStorage

from storage.database import sqlite_url
from storage.errors import StorageUnavailable
from storage.schema import SCHEMA_VERSION, keep_copy
from storage.studies import load_study, study_facts
from storage.telemetry import Telemetry

Opened = Callable[..., RDBStorage]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The file of a study as the tuner of schema 1 left it."""
    path = tmp_path / "study.db"
    dump = Path(__file__).with_name("schema_1.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump)
    return path


def dump_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def version_of(path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT value FROM tuner_meta WHERE key = 'schema_version'")
        return str(row.fetchone()[0])


@pytest.mark.parametrize("create", [True, False], ids=["writer", "reader"])
def test_a_study_of_schema_1_is_brought_up_to_date_and_kept_as_it_was(
    old: Path, create: bool
) -> None:
    before = dump_of(old)
    with Telemetry(sqlite_url(old), create=create) as telemetry:
        records = telemetry.records("old")
        assert [(r.trial, r.replicate, r.bound) for r in records] == [
            (0, 0, None),
            (0, 1, None),
            (0, 2, None),
            (1, 0, None),
        ]
        assert telemetry.curve("old", 1)[0].block == 0
        telemetry.save("old", records[0])
    assert version_of(old) == str(SCHEMA_VERSION)
    copy = old.with_name("study.schema-1.db")
    assert dump_of(copy) == before
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in old.parent.iterdir()} == {"study.db", "study.schema-1.db"}


def test_a_study_of_schema_1_is_opened_by_optuna_with_its_facts(old: Path, opened: Opened) -> None:
    study = load_study(opened(sqlite_url(old), create=False), "old")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert study_facts(study)["config"]["num_envs"] == [8, 16]
    assert version_of(old) == str(SCHEMA_VERSION)


def test_nothing_is_changed_where_no_copy_can_be_kept(old: Path) -> None:
    before = dump_of(old)
    old.with_name("study.schema-1.db").mkdir()  # the copy cannot take this name
    with pytest.raises(StorageUnavailable, match=r"schema-1\.db must be writable, to keep a copy"):
        Telemetry(sqlite_url(old))
    assert dump_of(old) == before
    assert {path.name for path in old.parent.iterdir()} == {"study.db", "study.schema-1.db"}


def test_a_study_that_is_up_to_date_is_not_copied(old: Path) -> None:
    for _ in range(2):
        Telemetry(sqlite_url(old)).close()
        old.with_name("study.schema-1.db").unlink(missing_ok=True)
    Telemetry(sqlite_url(old)).close()
    assert [path.name for path in old.parent.iterdir()] == ["study.db"]


def test_a_copy_holds_what_was_committed_and_replaces_an_earlier_one(old: Path) -> None:
    keep_copy(old, 1)
    with closing(sqlite3.connect(old, isolation_level=None)) as writer:
        writer.execute("UPDATE tuner_meta SET value = '1' WHERE key = 'schema_version'")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM tuner_records")
        copy = keep_copy(old, 1)
        writer.execute("ROLLBACK")
    assert dump_of(copy) == dump_of(old)
