"""A study that several processes measure: real workers, pinned to cores of their own."""

import os
import re
import signal
from typing import Any

import psutil
import pytest

from storage.database import sqlite_url
from storage.studies import (
    close_storage,
    load_study,
    open_storage,
    set_study_fact,
    study_facts,
)
from storage.telemetry import Telemetry
from tests.tuner.studies import BASELINE, SPACE, WORKLOAD, Studies, states, wait_for_line
from tuner.devices.cpu import own_cores
from tuner.lookup import groups_of
from tuner.trials import CLOSING


def _worker(leader: int) -> psutil.Process:
    """Return the one worker that a leader has started."""
    children = psutil.Process(leader).children()
    (found,) = [child for child in children if "worker" in child.cmdline()]
    return found


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(len(own_cores()) < 2, reason="two workers must have two cores")
def test_a_study_outlives_a_worker_that_is_killed_in_a_trial(studies: Studies) -> None:
    arguments = studies.start_arguments("t", *SPACE, *WORKLOAD, *BASELINE, "--workers", "2")
    with studies.begin(*arguments) as process:
        line = wait_for_line(process, "[1] trial")
        assert line is not None
        killed = int(re.findall(r"trial (\d+)", line)[0])
        worker = _worker(process.pid)
        cores = [set(p.cpu_affinity()) for p in (psutil.Process(process.pid), worker)]
        worker.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert not cores[0] & cores[1]
    assert [len(own) for own in cores] == [len(os.sched_getaffinity(0)) // 2] * 2
    assert "worker 1 died (signal 9): started again" in err
    assert f"trial {killed} was cut off: now fail" in err
    for told in err.splitlines():
        assert re.fullmatch(r"(\[1\] )?(  \S|[a-z]).*", told), told

    trials = studies.trials("t")
    assert states(trials).count("FAIL") == 1
    assert states(trials).count("COMPLETE") == 4  # the whole space, each config once
    assert len(trials) == 5
    assert trials[killed].params in [t.params for t in trials[killed + 1 :]]
    own = [r for r in studies.records("t") if r.replicate == 0]
    assert sorted(r.status for r in own) == ["interrupted", *["success"] * 4]
    assert {(int(r["trial"]), int(r["replicate"])) for r in studies.rows("t")} == {
        (r.trial, r.replicate) for r in studies.records("t")
    }
    assert studies.facts("t")["hardware"]["cores"] == len(cores[0])


def _elsewhere(studies: Studies, *flags: str) -> tuple[str, ...]:
    """Return the arguments of a worker that has none of the leader's files but the database."""
    url = sqlite_url(studies.folder / "runs/small/study.db")
    return ("worker", "small", "--storage", url, "--runs-dir", "elsewhere", *flags)


def _reopen(studies: Studies, **facts: Any) -> None:
    """Let the study's search be unfinished; change facts, as if it had been started elsewhere."""
    storage = open_storage(studies.url("small"), create=False)
    study = load_study(storage, "small")
    for name in ("ended", CLOSING):
        set_study_fact(study, name, None)
    for name, changes in facts.items():
        set_study_fact(study, name, {**study_facts(study)[name], **changes})
    close_storage(storage)


def test_a_worker_goes_on_with_a_study_whose_leader_is_gone(small: Studies) -> None:
    _reopen(small)
    ended = small.run(*_elsewhere(small, "--trials", "2"))
    assert ended.code == 0, ended.err
    assert "worker of small ended: --trials 2 reached" in ended.err
    assert states(small.trials("small")) == ["COMPLETE", "COMPLETE"]
    assert small.record("small", 1).status == "success"
    assert (small.folder / "elsewhere/small/logs/trial-0001.log").exists()
    assert not (small.folder / "elsewhere/small/trials.csv").exists()
    assert len(small.rows("small")) == 3  # the leader's file gets the row at the next resume


def test_other_hardware_is_refused_with_the_field_that_differs(small: Studies) -> None:
    _reopen(small, hardware={"name": "Another CPU"})
    ended = small.run(*_elsewhere(small))
    assert ended.code == 4
    assert "must stay on its hardware, whose name is 'Another CPU'" in ended.err
    assert "--allow-mixed" in ended.err


@pytest.mark.long
def test_other_hardware_measures_a_group_with_its_own_baseline_and_profiles(
    small: Studies,
) -> None:
    _reopen(small, hardware={"name": "Another CPU"})
    before = small.records("small")
    ended = small.run("worker", "small", "--allow-mixed", "--trials", "9")
    assert ended.code == 0, ended.err
    (group,) = groups_of(small.url("small"), "small")
    assert f"measured apart, as {group}" in ended.err
    with Telemetry(small.url("small")) as telemetry:
        own = telemetry.records(group)
        assert telemetry.records("small") == before
    assert [(r.trial, r.replicate) for r in own[:3]] == [(0, 0), (0, 1), (0, 2)]
    storage = open_storage(small.url("small"), create=False)
    trials = load_study(storage, group).get_trials()
    close_storage(storage)
    assert {t.user_attrs["hardware"] for t in trials} == {group.partition("@")[2]}
    profiles = small.folder / "runs/small/profiles" / group.partition("@")[2]
    assert sorted(p.name for p in profiles.glob("*.yaml")) == [
        "balanced.yaml",
        "max_gpu.yaml",
        "max_quality.yaml",
    ]
    assert group in small.run("status", "small").out
    assert group in small.run("list", "--json").out  # the table is cut at the width of the terminal


def test_other_code_is_refused_even_where_hardware_may_differ(small: Studies) -> None:
    _reopen(small, fingerprint={"jax": "0.1"}, hardware={"name": "Another CPU"})
    ended = small.run(*_elsewhere(small, "--allow-mixed"))
    assert ended.code == 4
    assert "must keep its version of jax, which is 0.1, but got" in ended.err
