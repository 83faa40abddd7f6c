"""A study of a thousand trials: read alike by both sides, and quickly by those who only look."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from made_up_study import BASELINE, REFERENCES, SPACE, build

from storage import overview
from storage.recovery import CONSTRAINT
from storage.studies import close_storage, load_study, open_storage
from storage.telemetry import Telemetry
from tuner.aggregate import NUMBERS, hardware_of, objectives, summarise
from tuner.config import StudyConfig
from tuner.finalists import choose_from
from tuner.report.html import write_html
from tuner.report.overview import status_document
from tuner.report.publish import show_in_dashboard
from tuner.search.sampler import make_sampler, num_untried, untried
from tuner.space import config_of

NUM_TRIALS = 1_000
STATUS_CPU_S = 2.0
PAGE_BYTES = 15e6
FACTS = {
    "hardware": {"kind": "cpu", "name": "a CPU", "memory_gb": 8.0, "uuid": None},
    "versions": {"jax": "0"},
    "util_source": "psutil",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    return build(tmp_path_factory.mktemp("many") / "runs", "many", NUM_TRIALS, FACTS)


def test_optuna_and_our_table_tell_of_the_same_trials(config: StudyConfig) -> None:
    with Telemetry(config.storage_url("many"), create=False) as telemetry:
        records = [r for r in telemetry.records("many") if r.replicate == 0]
    storage = open_storage(config.storage_url("many"), create=False)
    trials = load_study(storage, "many").get_trials(deepcopy=False)
    close_storage(storage)
    assert [trial.number for trial in trials] == [r.trial for r in records]
    assert [config_of(trial.params) for trial in trials] == [hardware_of(r) for r in records]
    assert [trial.value for trial in trials] == [r.final_score for r in records]
    infeasible = ("predicted_oom", "oom", "diverged")
    assert [trial.constraints[CONSTRAINT] > 0 for trial in trials] == [
        r.status in infeasible for r in records
    ]
    assert overview.counts(config.storage_url("many"), "many")["running"] == 0


def test_the_next_config_comes_from_a_space_of_a_hundred_thousand(config: StudyConfig) -> None:
    storage = open_storage(config.storage_url("many"), create=False)
    study = load_study(storage, "many", sampler=make_sampler("auto", config.space(), seed=1))
    left = untried(study, config.space())
    # 80 × 40 × 9 × 4 configs, of which one each was tried.
    assert num_untried(study.get_trials(), config.space()) == len(left) == 115_200 - NUM_TRIALS
    close_storage(storage)


def test_every_profile_rests_on_two_measurements(config: StudyConfig) -> None:
    with Telemetry(config.storage_url("many"), create=False) as telemetry:
        choices = choose_from(telemetry.records("many"), REFERENCES, min_feasible=3)
    assert min(choice.summary.replicates for choice in choices.values()) >= 2


def test_what_a_search_asks_of_scores_is_what_the_summaries_say(config: StudyConfig) -> None:
    with Telemetry(config.storage_url("many"), create=False) as telemetry:
        records = telemetry.records("many")
    scores = {
        NUMBERS(s.config): None if s.quality_acceptable is False else s.final_score
        for s in summarise(records)
    }
    assert objectives(records) == scores


def test_a_status_reads_a_part_of_the_records_and_says_the_same(config: StudyConfig) -> None:
    shown = status_document("many", {"runs_dir": str(config.runs_dir), "storage": None})
    with Telemetry(config.storage_url("many"), create=False) as telemetry:
        summaries = summarise(telemetry.records("many"))
    best = max((s for s in summaries if s.eligible), key=lambda s: s.final_score or 0.0)
    assert shown["best"]["config"] == best.config.as_dict()
    assert shown["best"]["sps"] == best.sps
    assert shown["baseline"]["config"] == BASELINE.as_dict()
    assert set(SPACE) == set(shown["best"]["config"])


def test_a_status_of_a_thousand_trials_takes_no_time(config: StudyConfig) -> None:
    tuner = Path(sys.executable).with_name("tuner")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [tuner, "status", "many", "--runs-dir", str(config.runs_dir), "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < STATUS_CPU_S


def test_the_page_of_a_thousand_trials_is_one_that_a_browser_opens(
    config: StudyConfig, tmp_path: Path
) -> None:
    places = {"runs_dir": str(config.runs_dir)}
    page = write_html("many", places, tmp_path / "page.html")
    # plotly.js is 4.8 MB of it.
    assert page.stat().st_size < PAGE_BYTES
    assert f"{NUM_TRIALS - 200} more have their series in the database alone" in page.read_text()


def test_a_dashboard_of_a_thousand_trials_is_written_once(config: StudyConfig) -> None:
    places = {"runs_dir": str(config.runs_dir)}
    folder = show_in_dashboard("many", places)
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with Telemetry(config.storage_url("many"), create=False) as telemetry:
        successes = [r for r in telemetry.records("many") if r.status == "success"]
    # A picture each of the curve and of the device, of every trial that has series.
    assert len(written) == 2 * len({r.trial for r in successes})
    show_in_dashboard("many", places)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
