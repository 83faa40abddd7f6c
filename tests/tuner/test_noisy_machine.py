"""A study beside a process that takes a core: disturbed, repeated, and brought to a result."""

import os
import subprocess
import sys

import pytest

from storage.profile_files import load_profile
from tests.tuner.studies import SMALL, Studies


@pytest.mark.long
def test_a_study_on_a_noisy_machine_ends_with_a_result_and_says_so(studies: Studies) -> None:
    cores = len(os.sched_getaffinity(0))
    # Half the cores, and at least one: a tenth of the host counts as a disturbance.
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(max(1, cores // 2))
    ]
    try:
        ended = studies.start("t", *SMALL, "--trials", "3", "--repeat-disturbed", "true")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert ended.code == 0, ended.err
    records = studies.records("t")
    assert all(r.contaminated for r in records if r.status == "success")
    # Three measurements of the baseline and three repeats, all in vain: the search makes no more.
    assert [r.replicate for r in records if r.trial == 0] == list(range(6))
    assert ended.err.count("measured once more") >= 3
    assert "noisy machine: " in ended.out
    profile = load_profile(studies.folder / "runs" / "t" / "profiles" / "balanced.yaml")
    assert profile.expected_sps_ci95 is not None
    assert profile.notes is not None
    assert "measured only while something else disturbed the device" in profile.notes
