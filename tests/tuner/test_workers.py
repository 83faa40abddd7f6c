"""A study that several processes measure: real workers, pinned to cores of their own."""

import os
import re
import signal

import psutil
import pytest

from tests.tuner.studies import BASELINE, SPACE, WORKLOAD, Studies, states, wait_for_line
from tuner.devices.cpu import own_cores

pytestmark = pytest.mark.skipif(len(own_cores()) < 2, reason="two workers must have two cores")


def _worker(leader: int) -> psutil.Process:
    """Return the one worker that a leader has started."""
    children = psutil.Process(leader).children()
    (found,) = [child for child in children if "worker" in child.cmdline()]
    return found


@pytest.mark.long
@pytest.mark.timeout(900)
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
