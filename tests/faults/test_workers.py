"""A worker that has nothing of the leader's but the address of its database, and is killed.

Leader, worker and PostgreSQL server are real, the trials those of a stand-in. `test_network` and
`benchmarks/soak.py` are the long forms.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd import APART, END, NAME, Crowd, can_be_apart
from killer import RUN_VARIABLE, Ledger, orphans
from recoveries import Recoveries

from storage.recovery import RETRY_OF
from storage.studies import close_storage, load_study, open_storage
from tests.faults.workers import wait_for_training, worker_of
from tests.postgres import PASSWORD, PostgresServer
from tests.tuner.studies import PATIENCE_S, kill_tree, states
from tests.tuner.trials import startup_code, wait_until

HEARTBEAT_S = 4.0
SLOW_S = 2.0
"""What a loaded machine may take on top of what the heartbeat promises."""
SMALL_SPACE = ("--num-envs", "16,32,64,128", "--num-steps", "16,32")
"""96 configs, on which the sampler spends no seconds."""
SHORT_HEARTBEAT = f"import storage.beats\nstorage.beats.HEARTBEAT_S = {HEARTBEAT_S}\n"


@pytest.fixture
def url() -> Iterator[str]:
    """The address of an empty database of a server of our own."""
    server = PostgresServer()
    server.start()
    yield server.url.render_as_string(hide_password=False)
    server.remove()


def test_the_trial_of_a_killed_worker_is_measured_once_more(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in startup_code(tmp_path / "startup", SHORT_HEARTBEAT).items():
        monkeypatch.setenv(name, value)
    # There are trials enough for the worker to have two, and it is killed in its second.
    leading, joined = Crowd(tmp_path, url, trial_s=2.5), Crowd(tmp_path, url, trial_s=5.0)
    with (
        leading.begin_leader("--trials", "8", *SMALL_SPACE) as leader,
        joined.begin("worker", ("worker", NAME), under=APART if can_be_apart() else ()) as worker,
    ):
        try:
            wait_until(lambda: joined.said("worker").count("\ntrial ") >= 2, within_s=120)
            lost = wait_for_training(joined)
            with Recoveries(url, NAME) as recoveries:
                victim = worker_of(joined)
                recoveries.note("worker", victim)
                victim.kill()
                wait_until(lambda: bool(recoveries.seconds))
            assert leader.wait(PATIENCE_S) == END, leading.said("leader")
        finally:
            for process in (leader, worker):
                if process.poll() is None:
                    kill_tree(process.pid)
    assert recoveries.seconds[0] < 2 * HEARTBEAT_S + SLOW_S
    assert f"trial {lost} was cut off: now fail" in leading.said("leader")

    ledger = Ledger(url, NAME)
    assert ledger.faults() == []
    assert ledger.measured_again == []
    storage = open_storage(url, create=False)
    trials = load_study(storage, NAME).get_trials()
    close_storage(storage)
    assert states(trials).count("COMPLETE") == 8
    assert [number for number, name in enumerate(states(trials)) if name == "FAIL"] == [lost]
    (again,) = [trial for trial in trials if trial.system_attrs.get(RETRY_OF) == lost]
    assert (again.state.name, again.params) == ("COMPLETE", trials[lost].params)
    assert [orphans(RUN_VARIABLE, crowd.token) for crowd in (leading, joined)] == [[], []]

    assert PASSWORD not in leading.said("leader") + joined.said("worker")
    files = {path.name for path in (tmp_path / "worker").rglob("*") if path.is_file()}
    assert f"trial-{lost:04}.log" in files
    assert not {"trials.csv", "config.yaml", "study.db"} & files
