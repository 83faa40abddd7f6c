"""trials.csv: columns, torn rows, processes that append at once."""

import csv
import math
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage.csv_file import COLUMNS, append, rewrite
from storage.errors import InvalidTable, StorageUnavailable
from storage.records import RECORD_FIELDS, TrialRecord
from tests.storage.processes import FORK

MakeRecord = Callable[..., TrialRecord]

# The published list, word for word.
CONTRACT = """trial, replicate, num_envs, num_steps, num_minibatches, num_epochs, status, reason,
device_util, util_source, gpu_util, sm_util, dram_util, peak_memory_gb, predicted_memory_gb,
memory_limit_gb, memory_source, avg_temperature, power_w, energy_j, mean_return, entropy,
policy_loss, value_loss, approx_kl, explained_variance, sps, sps_ci95, end_to_end_sps, compile_s,
duration, env_steps, seconds_to_target, gpu_score, quality_score, sps_score, final_score,
quality_acceptable, contaminated"""


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_the_published_ones_then_ours() -> None:
    published = [name.strip() for name in CONTRACT.split(",")]
    assert list(COLUMNS[: len(published)]) == published
    assert sorted(COLUMNS) == sorted(RECORD_FIELDS)


def test_rows_are_added_below_one_header(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "trials.csv"
    append(path, make_record(trial=0, reason='no room, says "XLA"\nat step 3'))
    append(path, make_record(trial=1, mean_return=math.nan))
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    first, second = _rows(path)
    assert first["reason"] == 'no room, says "XLA" at step 3'
    assert (first["sps"], first["sps_ci95"]) == ("125000.5", "[124000.0, 126000.0]")
    assert (first["compile_cached"], first["quality_acceptable"]) == ("false", "true")
    assert first["phases"] == '{"compile_s": 3.5, "window_s": 8.25}'
    assert (second["trial"], second["mean_return"], second["device_util"]) == ("1", "", "")


@pytest.mark.parametrize("kept", ["half a header", "whole header", "half a row", "a whole row"])
def test_a_torn_line_is_repaired(tmp_path: Path, make_record: MakeRecord, kept: str) -> None:
    path = tmp_path / "trials.csv"
    append(path, make_record(trial=0))
    append(path, make_record(trial=1))
    header, row, torn = path.read_text().splitlines(keepends=True)
    content = {
        "half a header": header[:20],
        "whole header": header,
        "half a row": header + row + torn[:30],
        "a whole row": header + row,
    }[kept]
    path.write_text(content)
    append(path, make_record(trial=2))
    expected = ["0", "2"] if "row" in kept else ["2"]
    assert [row["trial"] for row in _rows(path)] == expected


def test_every_cut_of_a_file_is_repaired(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "trials.csv"
    append(path, make_record(trial=0))
    append(path, make_record(trial=1))
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        append(path, make_record(trial=2))
        assert [row["trial"] for row in _rows(path)][-1] == "2"
        assert all(row["phases"] for row in _rows(path))


def test_a_file_with_other_columns_is_refused(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "trials.csv"
    path.write_text("trial,score\n1,2\n")
    with pytest.raises(InvalidTable, match=r"trials\.csv must have the columns .*\(trial,score"):
        append(path, make_record())
    assert path.read_text() == "trial,score\n1,2\n"
    rewrite(path, [make_record(trial=4), make_record(trial=5)])
    append(path, make_record(trial=6))
    assert [row["trial"] for row in _rows(path)] == ["4", "5", "6"]


def test_rewriting_gives_what_appending_gave(tmp_path: Path, make_record: MakeRecord) -> None:
    records = [make_record(trial=n) for n in range(3)]
    for record in records:
        append(tmp_path / "a.csv", record)
    rewrite(tmp_path / "b.csv", records)
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, make_record: MakeRecord) -> None:
    for write in (append, lambda path, record: rewrite(path, [record])):
        with pytest.raises(StorageUnavailable, match="must be writable, but got: No such file"):
            write(tmp_path / "missing" / "trials.csv", make_record())


def _append_with_little_room(path: Path, record: TrialRecord) -> None:
    room = path.stat().st_size + 50
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    with pytest.raises(StorageUnavailable, match="must be writable, but got"):
        append(path, record)


def test_a_row_for_which_there_is_no_room_leaves_nothing(
    tmp_path: Path, make_record: MakeRecord
) -> None:
    path = tmp_path / "trials.csv"
    append(path, make_record(trial=0))
    whole = path.read_bytes()
    child = FORK.Process(target=_append_with_little_room, args=(path, make_record(trial=1)))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert path.read_bytes() == whole


def _append_many(path: Path, record: TrialRecord) -> None:
    for replicate in range(25):
        append(path, replace(record, replicate=replicate))


def test_processes_may_append_at_once(tmp_path: Path, make_record: MakeRecord) -> None:
    path = tmp_path / "trials.csv"
    workers = [
        FORK.Process(target=_append_many, args=(path, make_record(trial=n))) for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    rows = [(row["trial"], int(row["replicate"])) for row in _rows(path)]
    assert sorted(rows) == [(str(n), r) for n in range(3) for r in range(25)]
