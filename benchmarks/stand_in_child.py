"""A stand-in for the trial process, which trains nothing: a trial takes a fraction of a second.

The conversation, the pipes and the ends are those of a real one; the numbers are made up from the
config and the seed. Run in place of `tuner.child` where `TUNER_TEST_CHILD` names this file.
"""

import math
import os
import random
import threading
import time

from tuner.child.channel import Channel, begin
from tuner.protocol import (
    FitRequest,
    PeaksRequest,
    PreflightRequest,
    ProbeRequest,
    RandomRequest,
    TrainRequest,
)

SECONDS_VARIABLE = "STAND_IN_TRIAL_S"
"""How long a trial trains; 0.2 s unless set."""
BLOCKS = 8
BEST_RETURN = 1.0
NOTE = "a stand-in trains: none of the numbers was measured"


def main() -> None:
    """Answer questions, pretend one trial, and end."""
    channel = Channel(begin().events_fd)
    channel.listen()
    channel.emit("ready")
    while True:
        match channel.next_request():
            case ProbeRequest():
                device = {"platform": "cpu", "device_kind": "stand-in", "local_hardware_id": 0}
                versions = {"python": None, "jax": None}
                channel.emit("probed", **device, bytes_limit=None, versions=versions)
            case PeaksRequest():
                channel.emit("peaks", reason=NOTE)
            case PreflightRequest(configs=configs):
                channel.emit("traced", traced=len(configs), seconds=0.0)
            case RandomRequest(seeds=seeds):
                returns = [0.1 + 0.001 * (seed % 3) for seed in seeds]
                channel.emit("random", returns=returns, **_environment())
            case FitRequest(candidates=candidates):
                channel.emit("fits", hardware=candidates[0], limit_bytes=None, tried=[])
            case TrainRequest() as request:
                train(request, channel)
                os._exit(0)


def train(request: TrainRequest, channel: Channel) -> None:
    """Send what a trial sends."""
    emit, stop = channel.emit, channel.stop
    draw = random.Random(f"{request.hardware} {request.seed}")
    emit("started", platform="cpu", device_kind="stand-in", **_environment())
    work = {"flops": None, "bytes": None, "kernels": None, "work_is_lower_bound": True}
    memory = {"predicted_bytes": 10**6, "limit_bytes": None}
    emit("compiled", lower_s=0.0, compile_s=0.0, cached=False, **memory, **work)
    emit("warm", seconds=0.0)
    batch = request.hardware["num_envs"] * request.hardware["num_steps"]
    seconds = float(os.environ.get(SECONDS_VARIABLE, "0.2")) / BLOCKS
    for block in range(BLOCKS):
        if _wait(stop, seconds):
            emit("done", stopped=True)
            return
        emit(
            "block",
            block=block,
            env_steps=(block + 1) * request.env_steps // BLOCKS,
            block_env_steps=request.env_steps // BLOCKS,
            seconds=request.env_steps / BLOCKS / (1e4 * math.sqrt(batch)) * draw.gauss(1, 0.01),
            metrics=_metrics((block + 1) / BLOCKS * _skill(batch), draw),
            learning=True,
            threads=2,
            held_bytes=10**6,
            resident_bytes=10**7,
        )
    emit(
        "measured",
        peak_bytes=10**6,
        memory_source="stand-in",
        recompiles=0,
        env_steps=request.env_steps,
        probe=None,
    )
    judged = {"mean_return": _skill(batch) + draw.gauss(0, 0.002), "return_se": 0.002}
    emit("done", stopped=False, params_changed=True, **judged)


def _wait(stop: threading.Event, seconds: float) -> bool:
    """Let a block's time pass; return whether the parent asked to stop."""
    time.sleep(seconds)
    return stop.is_set()


def _skill(batch: int) -> float:
    """Return what the final policy returns: more for a middling batch."""
    return 0.3 + 0.6 * math.exp(-((math.log2(batch) - 12) ** 2) / 16)


def _metrics(mean_return: float, draw: random.Random) -> dict[str, float]:
    return {
        "mean_return": mean_return,
        "entropy": 0.5,
        "policy_loss": -0.01,
        "value_loss": 0.1 + draw.random() / 100,
        "approx_kl": 0.01,
        "explained_variance": 0.5,
        "grad_norm": 0.4,
        "clip_fraction": 0.1,
        "max_entropy": math.log(3),
    }


def _environment() -> dict[str, object]:
    return {
        "obs_shape": [8],
        "action_space": "discrete",
        "num_actions": 3,
        "per_step_return": True,
        "best_return": BEST_RETURN,
        "notes": [NOTE],
    }


if __name__ == "__main__":
    main()
