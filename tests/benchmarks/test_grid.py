"""The format of recorded tables; the recording itself measures and is a long test."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from grid import VERSION, Grid, Recording, Row, read_grid, reopen, write_grid
from record_grid import is_dear, is_to_be_redone, order

from storage.records import CurvePoint, TrialRecord
from tuner.measurement import Evaluation
from tuner.outcome import Completed
from tuner.space import HardwareConfig

DEVICE = {"kind": "cpu", "platform": "cpu", "name": "some processor", "cores": 2.0,
          "memory_gb": 25.2}  # fmt: skip
FACTS = {
    "version": VERSION,
    "device": DEVICE,
    "versions": {"jax": "0.10"},
    "settings": {"env": "stress"},
    "space": {"num_envs": [8]},
    "env_steps": 1000,
}


def row(num_envs: int = 8, repeat: int = 0) -> Row:
    record = TrialRecord(trial=0, replicate=repeat, num_envs=num_envs, num_steps=16,
                         num_minibatches=2, num_epochs=2, status="success", sps=1e5,
                         phases={"compile": 3.0})  # fmt: skip
    metrics = {"mean_return": 0.5, "entropy": None}
    curve = tuple(
        CurvePoint(block=n, env_steps=100 * (n + 1), seconds=0.001, metrics=metrics)
        for n in range(40)
    )
    evaluation = Evaluation(0.5, 0.01, params_changed=True, earlier=(0.1, None, 0.4))
    return Row(record, curve, evaluation)


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    grid = Grid(dict(FACTS), (row(8), row(16, 1)))
    write_grid(tmp_path / "g.json.gz", grid)
    assert read_grid(tmp_path / "g.json.gz") == grid


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    write_grid(tmp_path / "g.json.gz", Grid({**FACTS, "version": 99}, ()))
    with pytest.raises(ValueError, match="must be a grid of version"):
        read_grid(tmp_path / "g.json.gz")


def test_a_row_is_a_measurement_again() -> None:
    measurement = row().measurement(Completed())
    assert measurement.throughput is not None
    assert measurement.throughput.sps == pytest.approx(1e5)
    assert measurement.record == row().record


def test_a_finished_table_is_gone_on_with(tmp_path: Path) -> None:
    path, rows = tmp_path / "g.jsonl", (row(8), row(16))
    reopen(path, Grid(FACTS, rows))
    again = {"command": "record_grid.py --repeats 4", "date": "2026-11-30"}
    with Recording(path, FACTS | again) as recording:
        recording.add(row(8, 1))
        grid = recording.grid()
    sitting = {**again, "device": DEVICE, "versions": FACTS["versions"]}
    assert grid == Grid(FACTS | {"last_sitting": sitting}, (row(8), row(8, 1), row(16)))


def test_a_table_of_final_evaluations_is_not_gone_on_with(tmp_path: Path) -> None:
    old = replace(row(8), evaluation=Evaluation(0.5, 0.01, params_changed=True))
    with pytest.raises(ValueError, match="must hold evaluations at milestones"):
        reopen(tmp_path / "g.jsonl", Grid(FACTS, (old, row(16))))


def test_a_disturbed_row_gives_way_to_a_later_one(tmp_path: Path) -> None:
    with Recording(tmp_path / "g.jsonl", FACTS) as recording:
        disturbed = replace(row(8), record=replace(row(8).record, contaminated="steal 20 %"))
        for added in (disturbed, row(8), disturbed):
            recording.add(added)
        assert recording.row(row(8).config, 0) == row(8)
        assert recording.grid() == Grid(FACTS, (row(8),))
        assert recording.row(row(16).config, 0) is None


def test_a_crash_gives_way_to_whatever_came_of_measuring_again(tmp_path: Path) -> None:
    crashed, disturbed = (
        replace(row(8), record=replace(row(8).record, **changes))
        for changes in ({"status": "crashed"}, {"contaminated": "steal 20 %"})
    )
    for rows, kept in (
        ((crashed, row(8)), row(8)),
        ((crashed, disturbed), disturbed),
        ((disturbed, crashed), disturbed),
        ((row(8), crashed), row(8)),
    ):
        with Recording(tmp_path / f"{id(rows)}.jsonl", FACTS) as recording:
            for added in rows:
                recording.add(added)
            assert recording.row(row(8).config, 0) == kept


def test_a_recording_goes_on_without_the_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    with Recording(path, FACTS) as recording:
        recording.add(row(8))
        recording.add(row(16))
    path.write_bytes(path.read_bytes()[:-20])
    with Recording(path, FACTS) as recording:
        assert recording.row(HardwareConfig(8, 16, 2, 2), 0) is not None
        assert recording.row(HardwareConfig(16, 16, 2, 2), 0) is None
        recording.add(row(16))
    with Recording(path, FACTS) as recording:
        assert [r.config.num_envs for r in recording.grid().rows] == [8, 16]


def test_a_recording_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    with Recording(tmp_path / "g.jsonl", FACTS):
        pass
    with pytest.raises(ValueError, match="must go on with the same device"):
        Recording(tmp_path / "g.jsonl", {**FACTS, "device": {**DEVICE, "name": "another"}})
    # After a restart a host may have a few kB less.
    with Recording(tmp_path / "g.jsonl", {**FACTS, "device": {**DEVICE, "memory_gb": 25.1999}}):
        pass


def test_every_config_is_measured_once_before_any_is_twice() -> None:
    configs = [HardwareConfig(n, 16, 2, 2) for n in range(1, 9)]
    baseline = configs[2]
    planned = order(configs, 3, baseline)
    assert planned == order(configs, 3, baseline)
    for repeat in range(3):
        part = planned[8 * repeat : 8 * (repeat + 1)]
        assert {c for c, _ in part} == set(configs)
        assert {r for _, r in part} == {repeat}
    assert [c for c, _ in planned[:8]] != [c for c, _ in planned[8:16]]
    assert planned[24:] == [(baseline, 3), (baseline, 4), (baseline, 5)]
    assert len(order(configs, 3, HardwareConfig(64, 16, 2, 2))) == 24


def test_a_config_is_dear_by_its_quicker_undisturbed_time_without_compiling(tmp_path: Path) -> None:
    def took(num_envs: int, repeat: int, seconds: float, contaminated: str | None = None) -> Row:
        known = row(num_envs, repeat)
        record = replace(known.record, duration=seconds, contaminated=contaminated)
        return replace(known, record=record)

    with Recording(tmp_path / "g.jsonl", FACTS) as recording:
        for found in (
            took(8, 0, 22.0),  # 19 s without compiling
            took(16, 0, 40.0),
            took(16, 1, 30.0),
            took(32, 0, 60.0, "steal"),
            took(32, 1, 22.0),
        ):
            recording.add(found)
        dear = {n: is_dear(recording, row(n).config, 2) for n in (8, 16, 32, 64)}
        assert dear == {8: False, 16: True, 32: False, 64: False}
        assert not is_dear(recording, row(16).config, 1)


def test_what_was_disturbed_or_crashed_is_measured_again() -> None:
    record = row(8).record
    states = [("success", None), ("success", "steal"), ("crashed", None), ("oom", None)]
    rows = [replace(row(8), record=replace(record, status=s, contaminated=c)) for s, c in states]
    assert list(map(is_to_be_redone, rows)) == [False, True, True, False]


@pytest.mark.long
def test_the_quick_table_is_recorded_whole(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "record_grid.py"
    done = subprocess.run([sys.executable, script, "--quick", "--json", "--out", tmp_path],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert json.loads(done.stdout)["measurements"] == 12
    grid = read_grid(tmp_path / "quick.json.gz")
    assert {r.repeat for r in grid.rows} == set(range(6))
    assert all(r.curve and r.record.status == "success" for r in grid.rows)
    assert grid.facts["chance"]["returns"]
    assert not (tmp_path / "quick.jsonl").exists()
