"""What a trial tells Optuna: milestones by hand, the fill-in score by hand, retries for real."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import optuna
import pytest

from storage.database import sqlite_url
from storage.recovery import DASHBOARD_FIELDS
from storage.telemetry import Telemetry
from tests.conftest import Finished
from tests.tuner.measurements import failure, record
from tuner.bench import Bench
from tuner.config import StudyConfig
from tuner.objective import Milestones, dashboard_attrs, fill_in_score, interpolate
from tuner.outcome import Pruned
from tuner.protocol import MILESTONES, Event
from tuner.references import References
from tuner.score import Weights
from tuner.session import Session

pytestmark = pytest.mark.timeout(600)


def block(env_steps: int, mean_return: float | None, *, learning: bool = True) -> Event:
    metrics = {"mean_return": mean_return}
    return Event("block", 0.0, {"env_steps": env_steps, "metrics": metrics, "learning": learning})


def reported(*blocks: Event, env_steps: int = 400) -> dict[int, float]:
    """Return what Optuna was told of a trial of 400 env-steps, by step."""
    study = optuna.create_study(direction="maximize")
    milestones = Milestones(study.ask(), env_steps)
    for seen in blocks:
        assert milestones.see(seen) is None
    study.tell(0, 0.0)
    return study.trials[0].intermediate_values


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (0, 1.0),  # before the first point: constant
        (100, 1.0),
        (150, 2.0),  # halfway from 1 to 3
        (200, 3.0),
        (225, 2.25),  # a quarter of the way from 3 to 0
        (300, 0.0),
        (900, 0.0),  # after the last point: constant
    ],
)
def test_interpolation_is_linear_between_points_and_constant_beyond(
    x: float, expected: float
) -> None:
    assert interpolate([(100, 1.0), (200, 3.0), (300, 0.0)], x) == pytest.approx(expected)


def test_a_single_point_is_constant() -> None:
    assert interpolate([(100, 5.0)], 7) == interpolate([(100, 5.0)], 700) == 5.0


def test_returns_are_reported_at_quarter_half_and_three_quarters_of_the_budget() -> None:
    assert MILESTONES == (0.25, 0.5, 0.75)
    # Milestones of 400 env-steps: 100, 200, 300. Between (80, 1) and (160, 3): 1 + 2 · 20/80 = 1.5;
    # between (160, 3) and (240, 5): 3 + 2 · 40/80 = 4; then 5 − 4 · 60/80 = 2.
    seen = reported(block(80, 1.0), block(160, 3.0), block(240, 5.0), block(320, 1.0))
    assert seen == pytest.approx({100: 1.5, 200: 4.0, 300: 2.0})


def test_one_long_block_passes_all_milestones() -> None:
    assert reported(block(400, 7.0)) == {100: 7.0, 200: 7.0, 300: 7.0}


def test_blocks_without_a_finished_episode_are_left_out_of_the_line() -> None:
    # Between (80, 1) and (320, 7): at 100 1 + 6 · 20/240 = 1.5, at 200 4, at 300 6.5.
    seen = reported(block(80, 1.0), block(160, None), block(320, 7.0))
    assert seen == pytest.approx({100: 1.5, 200: 4.0, 300: 6.5})
    assert reported(block(160, None), block(320, None)) == {}


def test_blocks_that_are_not_learning_are_not_reported() -> None:
    assert reported(block(400, 7.0, learning=False)) == {}


def test_the_pruner_ends_a_trial_that_lags_behind() -> None:
    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1)
    )
    first = study.ask()
    assert Milestones(first, 400).see(block(400, 7.0)) is None
    study.tell(first, 7.0)
    milestones = Milestones(study.ask(), 400)
    assert milestones.see(block(80, 1.0)) is None
    outcome = milestones.see(block(120, 1.0))
    assert isinstance(outcome, Pruned)
    assert "100 env-steps" in outcome.reason


def test_the_dashboard_gets_eight_columns_at_most_and_the_whole_record() -> None:
    attrs = dashboard_attrs(record(3, mean_return=None))
    assert set(attrs) == {*DASHBOARD_FIELDS, "record"} - {"mean_return", "reason"}
    assert len(DASHBOARD_FIELDS) <= 8
    assert json.loads(attrs["record"])["trial"] == 3
    assert dashboard_attrs(failure(3, "oom"))["reason"] == "it did not work"


def test_optuna_is_told_the_scores_of_the_table(finished: Finished) -> None:
    trials = finished.studies.trials("done")
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    for trial in trials:
        own = finished.studies.record("done", trial.number)
        told = json.loads(trial.user_attrs["record"])
        assert told["sps"] == trial.user_attrs["sps"]
        assert trial.constraints == {"feasible": 0.0}
        if trial.number:
            assert told["final_score"] == own.final_score
            assert sorted(trial.intermediate_values) == [4096, 8192, 12288]
            if own.final_score is not None:
                assert trial.value == own.final_score
            else:  # a window may be too short for its utilisation, which is filled in
                assert own.device_util is None
                assert 0 < trial.value < 1


def test_a_missing_component_is_filled_in_with_the_median_of_the_study(
    finished: Finished, tmp_path: Path
) -> None:
    stored = finished.studies.facts("done")["references"]
    references = replace(
        References.from_json(stored),
        components=("gpu", "quality", "sps"),
        weights=Weights(0.4, 0.4, 0.2),
    )
    study = optuna.create_study(study_name="s")
    with Telemetry(sqlite_url(tmp_path / "study.db")) as telemetry:
        for trial, gpu_score in enumerate((0.2, 0.6, 0.8)):
            telemetry.save("s", record(trial, gpu_score=gpu_score))
        session = Session(
            config=StudyConfig(),
            study=study,
            telemetry=telemetry,
            bench=cast(Bench, None),  # no device is needed to fill in
            say=lambda line: None,
            started=0.0,
            references=references,
        )
        lacking = record(3, gpu_score=None, quality_score=0.5, sps_score=0.25, final_score=None)
        # The median of 0.2, 0.6 and 0.8 is 0.6: 0.4 · 0.6 + 0.4 · 0.5 + 0.2 · 0.25 = 0.49.
        assert fill_in_score(session, lacking) == pytest.approx(0.49)
        session.references = replace(references, components=("gpu", "sps"))
        # Without quality the weights are 0.4 and 0.2: (0.24 + 0.05) / 0.6.
        assert fill_in_score(session, lacking) == pytest.approx(0.29 / 0.6)
