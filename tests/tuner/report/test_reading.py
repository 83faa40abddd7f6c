"""What is read of a study whose worker has died."""

from pathlib import Path

from optuna.trial import TrialState, create_trial

from storage.beats import BEAT_ATTR, new_beat
from storage.database import sqlite_url
from storage.studies import close_storage, create_study, open_storage, set_study_fact
from tuner.config import StudyConfig
from tuner.report.overview import status_document


def test_a_trial_whose_worker_is_gone_is_not_said_to_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "t").mkdir(parents=True)
    storage = open_storage(sqlite_url(runs / "t/study.db"), create=True)
    study = create_study(storage, "t")
    set_study_fact(study, "config", StudyConfig(runs_dir=runs).resolved("cpu").as_data())
    alive = new_beat("w", 1)
    for beat in (alive, {**alive, "pid_started": 1}):  # a process of that number ended long ago
        study.add_trial(create_trial(state=TrialState.RUNNING, system_attrs={BEAT_ATTR: beat}))
    close_storage(storage)
    document = status_document("t", {"runs_dir": runs})
    assert document["dead"] == [1]
    assert document["trials"] == {
        "complete": 0,
        "pruned": 0,
        "fail": 1,
        "running": 1,
        "waiting": 0,
    }
