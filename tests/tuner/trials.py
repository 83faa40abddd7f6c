"""Real trials for tests: children that train a small network on small environments."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tuner.interrupts import Interrupts
from tuner.isolation import Child, OnEvent, TrialRun, run_trial
from tuner.protocol import EnvParams, Event, TrainRequest, Workload

BATCH = 256
"""Env-steps of one update of `TINY`."""
TINY = {"num_envs": 16, "num_steps": 16, "num_minibatches": 2, "num_epochs": 2}
PATIENCE_S = 240.0
"""Longest that anything is waited for; only a loaded machine comes near it."""


def workload(
    learning_rate: float = 1e-3, *, env: str = "stress", env_params: EnvParams | None = None
) -> Workload:
    """Return a small workload: 8 observations and 16 hidden units."""
    if env_params is None:
        env_params = {"obs_dim": 8} if env == "stress" else {}
    return Workload(
        env=env,
        env_params=env_params,
        network=(16,),
        activation="tanh",
        dtype="float32",
        microbatch=None,
        hyperparams={
            "learning_rate": learning_rate,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "clip_eps": 0.2,
            "ent_coef": 0.01,
            "vf_coef": 0.5,
            "max_grad_norm": 0.5,
        },
    )


def request(cache_dir: Path, **changes: Any) -> TrainRequest:
    """Return a request for 64 updates of `TINY`, two in each of 32 blocks."""
    asked: dict[str, Any] = {
        "workload": workload(),
        "hardware": TINY,
        "seed": 0,
        "env_steps": 64 * BATCH,
        "cache_dir": str(cache_dir),
        **changes,
    }
    return TrainRequest(**asked)


def run(
    asked: TrainRequest,
    log_path: Path,
    *,
    timeout_s: float = PATIENCE_S,
    interrupts: Interrupts | None = None,
    on_event: OnEvent = lambda event: None,
    give_up_at: float | None = None,
) -> TrialRun:
    """Run a trial in a child of its own."""
    return run_trial(
        Child(log_path, preload=None),
        asked,
        timeout_s=timeout_s,
        interrupts=interrupts or Interrupts(),
        on_event=on_event,
        give_up_at=give_up_at,
    )


def names(events: tuple[Event, ...] | list[Event]) -> list[str]:
    """Return the names of events in order, a run of blocks as one."""
    found: list[str] = []
    for event in events:
        if event.name != "block" or found[-1:] != ["block"]:
            found.append(event.name)
    return found


def wait_for_event(child: Child, name: str) -> Event:
    """Return the child's next event of that name."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and not child.has_ended:
        event = child.next_event(1.0)
        if event is not None and event.name == name:
            return event
    raise AssertionError(f"the child must send {name}, but did not; log: {child.log_tail()}")


def wait_until(condition: Callable[[], bool], *, within_s: float = PATIENCE_S) -> None:
    """Wait for something that only another process can bring about."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition must come true, but did not"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def startup_code(folder: Path, code: str) -> dict[str, str]:
    """Return the environment variables under which every Python process runs `code` first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}
