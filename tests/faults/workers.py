"""Who of a crowd is at work, and on which trial."""

import psutil
from crowd import Crowd
from killer import RUN_VARIABLE, role_of
from recoveries import trial_of

from tests.tuner.trials import wait_until


def worker_of(crowd: Crowd) -> psutil.Process:
    """Return the one process of a crowd that measures."""
    ours = [p for p in psutil.Process().children(recursive=True) if role_of(p) is not None]
    (found,) = [
        p
        for p in ours
        if role_of(p) in ("leader", "worker") and p.environ()[RUN_VARIABLE] == crowd.token
    ]
    return found


def wait_for_training(crowd: Crowd) -> int:
    """Wait until a crowd's one worker has a trial's process at work; return the trial's number."""

    def is_training() -> bool:
        try:
            worker = worker_of(crowd)
            is_busy = any(role_of(p) == "trial" for p in worker.children())
            return is_busy and trial_of(worker) is not None
        except (ValueError, psutil.Error):
            return False

    wait_until(is_training)
    found = trial_of(worker_of(crowd))
    assert found is not None
    return found
