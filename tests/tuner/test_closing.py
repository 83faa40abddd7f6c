"""What becomes of the trial of a worker that is gone."""

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.attributes import AttributeTelemetry
from storage.beats import BEAT_ATTR, new_beat
from storage.journal import Entry, Journal
from storage.records import TrialRecord
from storage.studies import close_storage, create_study, load_study, open_storage
from storage.telemetry import Telemetry
from tests.storage.processes import FORK
from tests.tuner.studies import Studies
from tuner.closing import MOST_DEATHS, close_dead
from tuner.config import StudyConfig
from tuner.open_study import OpenStudy

RECORD = TrialRecord(trial=0, replicate=0, num_envs=8, num_steps=16, num_minibatches=2,
                     num_epochs=1, status="success", final_score=0.5)  # fmt: skip
NO_ID = ""
"""Of a study that was begun before there were ids."""
RECORD_PARAMS = ("num_envs", "num_steps", "num_minibatches", "num_epochs")


def _in_another_process(work: Callable[..., None], *arguments: object) -> None:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def _leave_in_journal(folder: Path, url: str | None = None) -> None:
    """What a worker leaves that is killed; with `url` its beat says who it was."""
    Journal(folder, NO_ID).add(Entry("t", RECORD, (), ()))
    if url is not None:
        storage = open_storage(url, create=False)
        trial_id = load_study(storage, "t").get_trials()[0]._trial_id
        storage.set_trial_system_attr(trial_id, BEAT_ATTR, new_beat("w", 1))
        close_storage(storage)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def opened(tmp_path: Path, said: list[str]) -> Iterator[OpenStudy]:
    """A study `t` with one trial that runs."""
    config = StudyConfig(runs_dir=tmp_path)
    config.folder("t").mkdir()
    url = config.storage_url("t")
    storage = open_storage(url, create=True)
    study = create_study(storage, "t")
    trial = study.ask()
    for name in RECORD_PARAMS:
        trial.suggest_categorical(name, (getattr(RECORD, name),))
    with Telemetry(url) as telemetry:
        yield OpenStudy(config=config, study=study, telemetry=telemetry, say=said.append)
    close_storage(storage)


def _ends(opened: OpenStudy) -> list[tuple[str, float | None]]:
    return [(trial.state.name, trial.value) for trial in opened.study.get_trials()]


def test_what_a_dead_worker_of_this_machine_left_in_its_journal_is_told(
    opened: OpenStudy, said: list[str]
) -> None:
    _in_another_process(_leave_in_journal, opened.folder)
    close_dead(opened, opened.study.get_trials()[0])
    assert opened.records() == [RECORD]
    assert _ends(opened) == [("COMPLETE", 0.5)]
    assert said == [
        "trial 0: its measurement, which waited, is saved",
        "trial 0 was cut off: now complete",
    ]


def test_a_trial_whose_journal_another_is_saving_is_left_to_the_next_look(
    opened: OpenStudy,
) -> None:
    _in_another_process(_leave_in_journal, opened.folder, opened.config.storage_url("t"))
    (journal,) = opened.folder.glob("journal-*")
    with journal.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        close_dead(opened, opened.study.get_trials()[0])
        assert _ends(opened) == [("RUNNING", None)]
    close_dead(opened, opened.study.get_trials()[0])
    assert _ends(opened) == [("COMPLETE", 0.5)]


def test_what_was_measured_behind_a_proxy_is_told_though_its_worker_died(
    opened: OpenStudy,
) -> None:
    AttributeTelemetry(opened.study).save("t", RECORD)
    close_dead(opened, opened.study.get_trials()[0])
    assert opened.records() == [RECORD]
    assert _ends(opened) == [("COMPLETE", 0.5)]


def test_a_config_that_kills_its_workers_is_given_up(opened: OpenStudy) -> None:
    for number in range(MOST_DEATHS):
        if number:
            trial = opened.study.ask()
            assert trial.number == number
            for name in RECORD_PARAMS:
                trial.suggest_categorical(name, (getattr(RECORD, name),))
        close_dead(opened, opened.study.get_trials()[number])
    assert [state for state, _ in _ends(opened)] == ["FAIL"] * (MOST_DEATHS - 1) + ["PRUNED"]
    assert opened.study.get_trials()[-1].constraints == {"feasible": 1.0}


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
