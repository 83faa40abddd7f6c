"""Each way in which a trial can end, provoked for real in a real study.

Faults strike inside the trial process (`tuner.child.faults`); the study must go on, tell Optuna
what its samplers should learn, and write down why.
"""

import json

import pytest
from optuna.trial import create_trial

from storage.studies import close_storage, load_study, open_storage
from tests.tuner.studies import SMALL, SPACE, WORKLOAD, Studies, config_of, is_infeasible, states
from tuner.space import config_of as config_of_params

OUTSIDE = ("--baseline", "32,16,2,2")


def _same_config(studies: Studies, name: str, first: int, second: int) -> bool:
    trials = studies.trials(name)
    return bool(trials[first].params == trials[second].params != {})


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_study_with_many_faults_goes_on_to_its_profiles(studies: Studies) -> None:
    # The baseline lies outside the space of four configs, so that all four are tried:
    # A is killed (1) and tried again (2), B runs out of memory (3), C diverges (4), D works (5).
    faults = "0:kill,1:kill,3:oom,4:diverge"
    ended = studies.start("t", *SPACE, *WORKLOAD, *OUTSIDE, fault=faults)
    assert ended.code == 0, ended.err
    trials = studies.trials("t")
    assert states(trials) == ["COMPLETE", "FAIL", "COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert trials[0].params == {}
    assert trials[1].params == trials[2].params
    assert [is_infeasible(trials[n]) for n in (2, 3, 4, 5)] == [False, True, True, False]

    tried = [config_of_params(trials[n].params) for n in (1, 3, 4, 5)]
    assert len(set(tried)) == 4

    records = {r.trial: r for r in studies.records("t") if r.replicate == 0}
    ends = ["success", "crashed", "success", "oom", "diverged", "success"]
    assert [records[n].status for n in range(6)] == ends
    assert "SIGKILL while training" in str(records[1].reason)
    assert "RESOURCE_EXHAUSTED" in str(records[3].reason)
    assert "stopped being finite" in str(records[4].reason)
    assert [records[n].final_score is None for n in range(6)] == [
        status != "success" for status in ends
    ]
    for row in studies.rows("t"):
        if row["replicate"] == "0":
            assert row["status"] == records[int(row["trial"])].status
            assert row["reason"] == (records[int(row["trial"])].reason or "")

    status = json.loads(studies.run("status", "t", "--json").out)
    assert status["trials"] == {"complete": 3, "pruned": 2, "fail": 1, "running": 0, "waiting": 0}
    found = {name: count for name, count in status["statuses"].items() if count}
    assert found == {"success": 3, "crashed": 1, "oom": 1, "diverged": 1}
    profiles = {path.name for path in (studies.folder / "runs/t/profiles").glob("*.yaml")}
    assert profiles == {"balanced.yaml", "max_gpu.yaml", "max_quality.yaml"}


@pytest.mark.long
def test_a_config_that_cannot_fit_is_refused_before_it_runs(small: Studies) -> None:
    # Predicted: 37 kB for 8x16, 64 kB for 8x32 and 16x16 (the baseline), 118 kB for 16x32.
    ended = small.resume("small", "--trials", "9", "--memory-limit", "90kB", "--min-feasible", "99")
    assert ended.code == 7, ended.err
    records = [r for r in small.records("small") if r.replicate == 0]
    (refused,) = [r for r in records if r.status == "predicted_oom"]
    assert (refused.num_envs, refused.num_steps) == (16, 32)
    assert f"needs {refused.predicted_memory_gb:.4g} GB" in str(refused.reason)
    assert refused.predicted_memory_gb is not None
    assert refused.predicted_memory_gb > 90e-6 == refused.memory_limit_gb
    assert (refused.sps, refused.window_s, refused.peak_memory_gb) == (None, None, None)
    trial = small.trials("small")[refused.trial]
    assert trial.state.name == "PRUNED"
    assert is_infeasible(trial)
    assert len({config_of(r) for r in records}) == len(records) == 4
    status = json.loads(small.run("status", "small", "--json").out)
    assert (status["trials"]["pruned"], status["trials"]["complete"]) == (1, 3)
    assert (status["statuses"]["predicted_oom"], status["statuses"]["success"]) == (1, 3)


def test_a_step_that_never_ends_is_killed_at_the_time_out(small: Studies) -> None:
    ended = small.resume("small", "--trials", "2", "--timeout", "12s", fault="1:hang")
    assert ended.code == 7  # the baseline alone is too little to export
    record, trial = small.record("small", 1), small.trials("small")[1]
    assert record.status == "timeout"
    assert "after 12 s; raise --timeout" in str(record.reason)
    assert trial.state.name == "PRUNED"
    assert is_infeasible(trial)


def test_a_config_that_crashes_twice_is_given_up(small: Studies) -> None:
    ended = small.resume("small", "--trials", "2", fault="1:abort,2:kill")
    assert ended.code == 7
    trials = small.trials("small")
    assert states(trials) == ["COMPLETE", "FAIL", "PRUNED"]
    assert _same_config(small, "small", 1, 2)
    assert trials[2].user_attrs["retry"] is True
    assert is_infeasible(trials[2])
    records = [small.record("small", number) for number in (1, 2)]
    assert [record.status for record in records] == ["crashed", "crashed"]
    assert "SIGABRT" in str(records[0].reason)
    assert "SIGKILL" in str(records[1].reason)


def test_a_weak_trial_is_pruned_at_a_milestone_and_stays_feasible(small: Studies) -> None:
    # Five finished trials that returned 1e9 at each milestone of 16,384 env-steps: their median
    # is out of reach, and Optuna's median pruner begins after five.
    storage = open_storage(small.url("small"), create=False)
    strong = {4096: 1e9, 8192: 1e9, 12288: 1e9}
    for _ in range(5):
        load_study(storage, "small").add_trial(create_trial(value=0.5, intermediate_values=strong))
    close_storage(storage)
    ended = small.resume("small", "--trials", "2", "--pruner", "median")
    assert ended.code == 7
    record, trial = small.record("small", 6), small.trials("small")[6]
    assert record.status == "pruned"
    assert "pruned at 4,096 env-steps" in str(record.reason)
    assert trial.state.name == "PRUNED"
    assert not is_infeasible(trial)
    assert list(trial.intermediate_values) == [4096]
    assert record.final_score is None


@pytest.mark.long
def test_an_interrupted_trial_is_tried_again_on_resume(small: Studies) -> None:
    ended = small.resume("small", "--trials", "2", fault="1:interrupt")
    assert ended.code == 5
    assert "go on with `tuner resume small`" in ended.err
    record = small.record("small", 1)
    assert (record.status, record.reason) == ("interrupted", "stopped on request while training")
    assert states(small.trials("small")) == ["COMPLETE", "FAIL", "WAITING"]
    status = json.loads(small.run("status", "small", "--json").out)
    assert status["statuses"]["interrupted"] == status["trials"]["fail"] == 1

    assert small.resume("small", "--trials", "2").code == 7
    assert states(small.trials("small")) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert _same_config(small, "small", 1, 2)
    assert [row["status"] for row in small.rows("small")[3:]] == ["interrupted", "success"]


def test_a_baseline_that_diverges_ends_the_study_and_frees_its_name(studies: Studies) -> None:
    ended = studies.start("t", *SMALL, "--learning-rate", "1e30")
    assert ended.code == 2
    last = ended.err.strip().splitlines()[-1]
    assert "the baseline must" in last
    assert "diverg" in last
    assert "try --baseline" in last
    # Nothing was measured that counts, and the name can be used again.
    assert json.loads(studies.run("list", "--json").out) == []
