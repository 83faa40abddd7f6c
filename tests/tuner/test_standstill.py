"""Times in which this process did not run, told from those in which it was busy."""

import time

import pytest

from tuner import standstill
from tuner.standstill import RunningTime


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> RunningTime:
    monkeypatch.setattr(standstill, "STANDSTILL_S", 0.05)
    return RunningTime()


def test_a_wait_that_took_far_too_long_was_a_standstill(running: RunningTime) -> None:
    before = time.monotonic()
    time.sleep(0.2)
    running.see_wait()
    (still,) = running.standstills
    assert still.start <= before <= still.end - 0.2
    assert still.seconds >= 0.2
    assert running.seconds == 0.05


def test_long_work_is_no_standstill_and_counts_no_further(running: RunningTime) -> None:
    time.sleep(0.2)
    running.see_work()
    assert running.standstills == []
    assert running.seconds == 0.05


def test_short_waits_add_up(running: RunningTime) -> None:
    for _ in range(3):
        time.sleep(0.01)
        running.see_wait()
    assert running.seconds >= 0.03


def test_a_suspended_machine_is_noticed_though_its_clock_stood_still(
    running: RunningTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = standstill._suspended_s()
    monkeypatch.setattr(standstill, "_suspended_s", lambda: before + 3600)
    running.see_wait()
    (still,) = running.standstills
    assert still.seconds == pytest.approx(3600, abs=1)
