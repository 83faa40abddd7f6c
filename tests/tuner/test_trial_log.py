"""The log of a trial process, which is held to a size while others write to it."""

from pathlib import Path

import pytest

from tuner import trial_log
from tuner.trial_log import TrialLog


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialLog:
    monkeypatch.setattr(trial_log, "MOST_BYTES", 100)
    monkeypatch.setattr(trial_log, "KEPT_BYTES", 20)
    return TrialLog(tmp_path / "logs" / "trial.log")


def test_a_log_that_is_cut_keeps_both_ends_and_takes_what_comes(log: TrialLog) -> None:
    with log.open() as file:
        file.write(b"a" * 50 + b"m" * 30 + b"z" * 50)
        file.flush()
        log.cut()
        file.write(b"more")
    note = "\n[90 bytes are left out here: a log is cut at 100 bytes]\n"
    assert log.tail(1000) == "a" * 20 + note + "z" * 20 + "more"


def test_a_log_of_the_allowed_size_is_left_alone(log: TrialLog) -> None:
    with log.open() as file:
        file.write(b"a" * 100)
    log.cut()
    assert log.tail(1000) == "a" * 100
    assert log.tail(5) == "a" * 5


def test_a_renamed_log_is_cut_under_its_new_name(log: TrialLog, tmp_path: Path) -> None:
    with log.open() as file:
        log.rename(tmp_path / "logs" / "other.log")
        file.write(b"a" * 200)
    log.cut()
    assert (tmp_path / "logs" / "other.log").stat().st_size < 200


def test_a_log_that_is_gone_is_no_fault(log: TrialLog) -> None:
    log.cut()
