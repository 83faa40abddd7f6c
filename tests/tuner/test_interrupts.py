"""Ctrl-C and SIGTERM, sent to a real `tuner` at work."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from tests.conftest import Calibrated
from tests.tuner.studies import PATIENCE_S, SMALL, Studies, states, wait_for_line
from tuner.interrupts import Interrupts
from tuner.isolation import Child, run_trial
from tuner.outcome import Interrupted
from tuner.protocol import Event, TrainRequest
from tuner.settings import load_config
from tuner.space import HardwareConfig

TRAINING = "trial 1:"


def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the command's end; return its exit code and the rest of what it said."""
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


def _children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _all_end(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=60)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_once_the_study_ends_with_5_and_everything_is_saved(
    small: Studies, number: signal.Signals
) -> None:
    page = small.folder / "runs" / "small" / "report.html"
    before = page.stat().st_mtime
    with small.begin("resume", "small", "--trials", "3") as process:
        assert wait_for_line(process, TRAINING) is not None
        process.send_signal(number)
        code, err = _end(process)
    assert code == 5
    assert "interrupted: the running trial ends after its block" in err
    assert "finished trials are saved; go on with `tuner resume small`" in err
    assert "report: runs/small/report.html" in err
    assert page.stat().st_mtime > before
    # Where it stood in its training decides whether the trial still ended by itself.
    record, trials = small.record("small", 1), small.trials("small")
    if record.status == "interrupted":
        assert str(record.reason).startswith("stopped on request while")
        assert states(trials) == ["COMPLETE", "FAIL", "WAITING"]
    else:
        assert (record.status, states(trials)) == ("success", ["COMPLETE", "COMPLETE"])
    assert [row["trial"] for row in small.rows("small")] == ["0", "0", "0", "1"]
    assert small.facts("small")["ended"] is None  # a resume goes on


def test_asked_twice_the_study_kills_a_trial_that_does_not_end(small: Studies) -> None:
    with small.begin("resume", "small", "--trials", "3", fault="1:hang") as process:
        assert wait_for_line(process, TRAINING) is not None
        children = _children(process)
        process.send_signal(signal.SIGINT)
        assert wait_for_line(process, "ends after its block") is not None
        process.send_signal(signal.SIGINT)
        code, err = _end(process)
    assert code == 5
    assert _all_end(children)
    assert "report: " not in err
    assert small.record("small", 1).status == "interrupted"
    assert states(small.trials("small")) == ["COMPLETE", "FAIL", "WAITING"]
    assert small.rows("small")[-1]["status"] == "interrupted"


def test_a_training_step_that_never_ends_survives_one_request_and_not_two(
    calibrated: Calibrated, cache_dir: Path, tmp_path: Path
) -> None:
    config = load_config(calibrated.studies.facts("small")["config"], {})
    request = TrainRequest(
        workload=config.workload(),
        hardware=HardwareConfig(16, 16, 2, 2).as_dict(),
        seed=0,
        env_steps=16384,
        cache_dir=str(cache_dir),
        fault="hang",  # after the second block
    )
    child = Child(tmp_path / "trial.log", preload=None)
    requests = [
        threading.Timer(wait_s, os.kill, (os.getpid(), number))
        for wait_s, number in ((0.5, signal.SIGINT), (1.5, signal.SIGTERM))
    ]
    with Interrupts() as interrupts:

        def ask_twice(event: Event) -> None:
            if event.name == "block" and event.data["block"] == 1:
                for timer in requests:
                    timer.start()

        run = run_trial(
            child, request, timeout_s=PATIENCE_S, interrupts=interrupts, on_event=ask_twice
        )
        for timer in requests:
            timer.join()
    assert run.outcome == Interrupted("killed at the second request to stop")
    assert len(run.blocks()) == 2


def test_without_its_parent_a_trial_ends_by_itself_even_in_a_step_that_never_ends(
    small: Studies,
) -> None:
    with small.begin("resume", "small", "--trials", "3", fault="1:hang") as process:
        assert wait_for_line(process, TRAINING) is not None
        children = _children(process)
        process.kill()
        process.communicate()
    assert children
    assert _all_end(children)


@pytest.mark.long
def test_a_study_interrupted_twice_while_calibrating_ends_with_5_and_can_be_resumed(
    studies: Studies,
) -> None:
    with studies.begin(*studies.start_arguments("t", *SMALL, "--trials", "1")) as process:
        assert wait_for_line(process, "calibrating") is not None
        for words in ("ends after its block", "is killed"):
            process.send_signal(signal.SIGINT)
            assert wait_for_line(process, words) is not None
        code, _ = _end(process)
    assert code == 5
    assert studies.trials("t") == []
    assert studies.rows("t") == []
    assert studies.resume("t").code == 7  # calibrated now, and --trials 1 is the baseline
    assert states(studies.trials("t")) == ["COMPLETE"]
    assert [row["replicate"] for row in studies.rows("t")] == ["0", "1", "2"]
