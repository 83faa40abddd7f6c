"""Records, curves and samples in real databases, with real kills."""

import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.database import connect, sqlite_url
from storage.errors import NewerSchema, NotADatabase, StorageUnavailable, StudyNotFound
from storage.records import STATUSES, CurvePoint, DeviceSample, TrialRecord
from storage.schema import META, RECORDS, SCHEMA_VERSION, purge
from storage.telemetry import _FEW, Telemetry
from tests.storage.processes import FORK

MakeRecord = Callable[..., TrialRecord]


def test_what_is_saved_is_read_back_equal(
    url: str, make_record: MakeRecord, curve: list[CurvePoint], samples: list[DeviceSample]
) -> None:
    record = make_record()
    with Telemetry(url) as telemetry:
        telemetry.save("demo", record, curve, samples)
    with Telemetry(url, create=False) as telemetry:
        assert telemetry.record("demo", 7) == record
        assert telemetry.curve("demo", 7) == curve
        assert telemetry.samples("demo", 7) == samples


def test_what_was_not_saved_is_absent(url: str, make_record: MakeRecord) -> None:
    with Telemetry(url) as telemetry:
        telemetry.save("demo", make_record(trial=1))
        assert telemetry.record("demo", 2) is None
        assert telemetry.record("demo", 1, replicate=1) is None
        assert telemetry.record("other", 1) is None
        assert telemetry.curve("demo", 1) == []
        assert telemetry.samples("demo", 2) == []
        assert telemetry.records("other") == []


def test_saving_again_replaces_the_whole_measurement(
    url: str, make_record: MakeRecord, curve: list[CurvePoint], samples: list[DeviceSample]
) -> None:
    with Telemetry(url) as telemetry:
        telemetry.save("demo", make_record(sps=1.0), curve, samples)
        telemetry.save("demo", make_record(sps=2.0), curve[:1])
        assert [record.sps for record in telemetry.records("demo")] == [2.0]
        assert telemetry.curve("demo", 7) == curve[:1]
        assert telemetry.samples("demo", 7) == []


def test_records_read_again_are_those_that_others_have_left(
    url: str, make_record: MakeRecord
) -> None:
    with Telemetry(url) as reader, Telemetry(url) as writer:
        for trial in (1, 2, 3):
            writer.save("demo", make_record(trial=trial, sps=float(trial)))
        first = reader.records("demo")
        assert [r.sps for r in first] == [1.0, 2.0, 3.0]
        assert all(a is b for a, b in zip(first, reader.records("demo"), strict=True))
        writer.save("demo", make_record(trial=2, sps=20.0))
        writer.save("demo", make_record(trial=2, replicate=1, sps=21.0))
        writer.save("demo", make_record(trial=0, sps=0.5))
        writer.discard("demo", 3)
        assert [r.sps for r in reader.records("demo")] == [0.5, 1.0, 20.0, 21.0]
        writer.discard("demo", 1)
        assert [r.sps for r in reader.records("demo")] == [0.5, 20.0, 21.0]
        for trial in range(_FEW + 1):
            writer.save("demo", make_record(trial=trial, sps=7.0))
        with Telemetry(url, create=False) as fresh:
            assert reader.records("demo") == fresh.records("demo")


def test_records_read_in_part_have_those_fields_and_no_others(
    url: str, make_record: MakeRecord
) -> None:
    with Telemetry(url) as telemetry:
        record = make_record(trial=1)
        telemetry.save("demo", record)
        names = [f.name for f in fields(TrialRecord)][:7]
        (brief,) = telemetry.records("demo", only=(*names, "sps"))
        assert brief == TrialRecord(**{name: getattr(record, name) for name in (*names, "sps")})
        assert telemetry.records_of("demo", 1) == telemetry.records("demo") == [record]
        assert telemetry.records_of("demo", 2) == []
        assert telemetry.trials("demo") == [1]


@pytest.mark.parametrize("create", [True, False], ids=["writer", "reader"])
def test_tables_of_schema_1_gain_the_columns_they_lack(
    url: str, make_record: MakeRecord, create: bool
) -> None:
    added_in_2 = ("bound", "probe", "joules_per_msteps", "steady_from_block")
    old = replace(make_record(), **dict.fromkeys(added_in_2))
    with Telemetry(url) as telemetry:
        telemetry.save("demo", old)
    engine = connect(url)
    with engine.begin() as connection:
        for name in added_in_2:
            connection.execute(sa.text(f"ALTER TABLE {RECORDS.name} DROP COLUMN {name}"))
        connection.execute(sa.update(META).values(value="1"))
    engine.dispose()
    with Telemetry(url, create=create) as telemetry:
        assert telemetry.records("demo") == [old]
        telemetry.save("demo", replace(old, trial=8, bound="memory"))
        assert [record.bound for record in telemetry.records("demo")] == [None, "memory"]


def test_records_come_by_trial_and_replicate(url: str, make_record: MakeRecord) -> None:
    keys = [(10, 0), (2, 1), (2, 0), (0, 0)]
    with Telemetry(url) as telemetry:
        for trial, replicate in keys:
            telemetry.save("demo", make_record(trial=trial, replicate=replicate))
        found = [(record.trial, record.replicate) for record in telemetry.records("demo")]
    assert found == sorted(keys)


def test_status_counts_leave_replicates_out(url: str, make_record: MakeRecord) -> None:
    with Telemetry(url) as telemetry:
        for trial, status in enumerate(["success", "oom", "success", "predicted_oom"]):
            telemetry.save("demo", make_record(trial=trial, status=status))
        telemetry.save("demo", make_record(trial=0, replicate=1))
        telemetry.save("other", make_record(trial=0, status="crashed"))
        counts = telemetry.status_counts("demo")
    assert tuple(counts) == STATUSES
    assert {status: n for status, n in counts.items() if n} == {
        "success": 2,
        "predicted_oom": 1,
        "oom": 1,
    }


def test_a_number_that_is_none_is_stored_as_none(url: str, make_record: MakeRecord) -> None:
    record = make_record(
        mean_return=math.nan, value_loss=math.inf, sps_ci95=(1.0, math.inf), phases={"x": math.nan}
    )
    point = CurvePoint(block=0, env_steps=1, seconds=1.0, metrics={"value_loss": -math.inf})
    with Telemetry(url) as telemetry:
        telemetry.save("demo", record, [point])
        stored = telemetry.record("demo", 7)
        assert telemetry.curve("demo", 7) == [replace(point, metrics={"value_loss": None})]
    assert stored is not None
    assert (stored.mean_return, stored.value_loss, stored.sps_ci95) == (None, None, None)
    assert stored.phases == {"x": None}


def test_purge_clears_one_study_only(url: str, make_record: MakeRecord) -> None:
    with Telemetry(url) as telemetry:
        for study in ("old", "kept"):
            telemetry.save(study, make_record())
        engine = connect(url)
        purge(engine, "old")
        engine.dispose()
        assert telemetry.records("old") == []
        assert len(telemetry.records("kept")) == 1


def test_a_reader_makes_no_file_and_no_tables(tmp_path: Path) -> None:
    with pytest.raises(StudyNotFound):
        Telemetry(sqlite_url(tmp_path / "study.db"), create=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    with pytest.raises(StudyNotFound):
        Telemetry(sqlite_url(tmp_path / "empty.db"), create=False)
    assert (tmp_path / "empty.db").stat().st_size == 0


@pytest.mark.parametrize("content", ["hello\n", "x" * 5000])
def test_a_file_of_another_kind_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(NotADatabase, match=r"notes\.txt must be an intact SQLite database"):
        Telemetry(sqlite_url(path))
    assert path.read_text() == content


def test_tables_of_a_newer_tuner_are_refused(url: str) -> None:
    Telemetry(url).close()
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(sa.update(META).values(value="99"))
    engine.dispose()
    with pytest.raises(
        NewerSchema, match=f"schema {SCHEMA_VERSION} or older, but got schema 99; install"
    ):
        Telemetry(url)


def test_many_processes_may_make_the_tables_at_once(postgres_url: str) -> None:
    faults: list[BaseException] = []

    def open_it() -> None:
        try:
            Telemetry(postgres_url).close()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_a_server_that_is_gone_is_named_without_its_password() -> None:
    with pytest.raises(StorageUnavailable) as caught:
        Telemetry("postgresql+psycopg://me:hunter22@127.0.0.1:1/db")
    assert "postgresql+psycopg://me:***@127.0.0.1:1/db" in str(caught.value)
    assert "hunter22" not in str(caught.value)
    assert "\n" not in str(caught.value)


def _save_and_die(url: str, record: TrialRecord, at_statement: int) -> None:
    """Save, but be killed right after the `at_statement`-th change, before anything else."""
    changes = 0

    def die_in_time(connection: sa.Connection, cursor: object, statement: str, *_: object) -> None:
        nonlocal changes
        changes += statement.startswith(("DELETE", "INSERT"))
        if changes == at_statement:
            os.kill(os.getpid(), signal.SIGKILL)

    telemetry = Telemetry(url)
    sa.event.listen(telemetry._engine, "after_cursor_execute", die_in_time)
    telemetry.save("demo", record, *_series(record.trial))


def _series(trial: int) -> tuple[list[CurvePoint], list[DeviceSample]]:
    metrics: dict[str, float | None] = {"mean_return": float(trial)}
    points = range(200)
    return (
        [CurvePoint(block=n, env_steps=n, seconds=1.0, metrics=metrics) for n in points],
        [DeviceSample(t=float(n), util=float(trial)) for n in points],
    )


def _is_whole(telemetry: Telemetry, trial: int) -> bool:
    """Whether a measurement is wholly there; fails when it is there in part."""
    parts = [
        telemetry.record("demo", trial) is not None,
        len(telemetry.curve("demo", trial)) == 200,
        len(telemetry.samples("demo", trial)) == 200,
    ]
    assert len(set(parts)) == 1, f"trial {trial} is half saved: {parts}"
    return parts[0]


# A save is a DELETE and an INSERT in each of three tables: six moments between statements.
@pytest.mark.parametrize("at_statement", range(1, 7))
def test_a_kill_inside_a_save_leaves_the_earlier_measurement(
    url: str, make_record: MakeRecord, at_statement: int
) -> None:
    with Telemetry(url) as telemetry:
        telemetry.save("demo", make_record(sps=1.0), *_series(7))
        arguments = (url, make_record(sps=2.0), at_statement)
        child = FORK.Process(target=_save_and_die, args=arguments)
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert _is_whole(telemetry, 7)
        assert [record.sps for record in telemetry.records("demo")] == [1.0]
        telemetry.save("demo", make_record(sps=3.0), *_series(7))
        assert _is_whole(telemetry, 7)


def _save_for_ever(url: str, record: TrialRecord) -> None:
    telemetry = Telemetry(url)
    for trial in range(1_000_000):
        telemetry.save("demo", replace(record, trial=trial), *_series(trial))


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_any_moment_loses_nothing_saved(
    url: str, make_record: MakeRecord, seed: int
) -> None:
    with Telemetry(url) as telemetry:
        child = FORK.Process(target=_save_for_ever, args=(url, make_record()))
        child.start()
        deadline = time.monotonic() + 60
        while not telemetry.records("demo"):
            assert time.monotonic() < deadline
        time.sleep(random.Random(seed).uniform(0.0, 0.1))
        child.kill()
        child.join(60)
        saved = [record.trial for record in telemetry.records("demo")]
        assert saved == list(range(len(saved)))
        assert all(_is_whole(telemetry, trial) for trial in saved)
        _is_whole(telemetry, len(saved))  # a server may still commit what the dead child sent


def test_tables_hold_every_field_of_a_record() -> None:
    expected = {"study", *TrialRecord.__dataclass_fields__}
    assert {column.name for column in RECORDS.columns} == expected
