"""What becomes of the trial of a worker that is gone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from storage.beats import BEAT_ATTR, new_beat
from storage.database import sqlite_url
from storage.journal import Entry, Journal
from storage.records import TrialRecord
from storage.studies import close_storage, create_study, load_study, open_storage
from storage.telemetry import Telemetry
from tests.storage.processes import FORK
from tests.tuner.studies import Studies
from tuner.closing import close_dead
from tuner.config import StudyConfig
from tuner.session import Session

RECORD = TrialRecord(trial=0, replicate=0, num_envs=8, num_steps=16, num_minibatches=2,
                     num_epochs=1, status="success", final_score=0.5)  # fmt: skip


def _in_another_process(work: Callable[..., None], *arguments: object) -> None:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _leave_in_journal(folder: Path) -> None:
    Journal(folder).add(Entry("t", RECORD, (), ()))


def test_what_a_dead_worker_of_this_machine_left_in_its_journal_is_told(tmp_path: Path) -> None:
    config = StudyConfig(runs_dir=tmp_path)
    config.folder("t").mkdir()
    url, said = sqlite_url(tmp_path / "study.db"), list[str]()
    storage = open_storage(url, create=True)
    study = create_study(storage, "t")
    trial = study.ask()
    for name in ("num_envs", "num_steps", "num_minibatches", "num_epochs"):
        trial.suggest_categorical(name, (getattr(RECORD, name),))
    _in_another_process(_leave_in_journal, config.folder("t"))
    with Telemetry(url) as telemetry:
        session = Session(
            config=config,
            study=study,
            telemetry=telemetry,
            bench=cast(Any, None),
            say=said.append,
            started=0.0,
            worker="another",
        )
        close_dead(session, study.get_trials()[0])
        assert telemetry.records("t") == [RECORD]
    assert [(t.state.name, t.value) for t in study.get_trials()] == [("COMPLETE", 0.5)]
    assert said == [
        "trial 0: its measurement, which waited, is saved",
        "trial 0 was cut off: now complete",
    ]
    close_storage(storage)


def _leave_running(url: str) -> None:
    storage = open_storage(url, create=False)
    study = load_study(storage, "done")
    done = next(trial for trial in study.get_trials() if trial.params)
    trial = study.ask(done.distributions)
    storage.set_trial_system_attr(trial._trial_id, BEAT_ATTR, new_beat("w", 1))
    close_storage(storage)


def test_who_asks_for_the_status_ends_the_trials_of_dead_workers(copied: Studies) -> None:
    _in_another_process(_leave_running, copied.url("done"))
    before = copied.trials("done")
    assert before[-1].state.name == "RUNNING"
    asked = [copied.run("status", "done", "--json") for _ in range(2)]
    documents = [json.loads(ended.out) for ended in asked]
    assert [ended.err for ended in asked] == [
        f"trial {before[-1].number} was cut off: now fail\n",
        "",
    ]
    for document in documents:
        assert document["dead"] == []
        assert (document["trials"]["running"], document["trials"]["waiting"]) == (0, 1)
    *_, cut_off, again = copied.trials("done")
    assert (cut_off.state.name, again.state.name) == ("FAIL", "WAITING")
    assert again.system_attrs["fixed_params"] == cut_off.params
