"""The questions that open a study: the device, its reach, what chance returns, what fits."""

from collections.abc import Callable
from typing import Any

import jax

from tuner.child.compiles import CompileCounter
from tuner.child.evaluation import evaluate_random
from tuner.child.facts import device_facts, environment_facts, versions
from tuner.child.memory import limit_bytes
from tuner.child.peaks import measure_peaks
from tuner.child.program import build, build_environment, compile_training
from tuner.protocol import FitRequest, RandomRequest

Emit = Callable[..., None]

JUDGED_BY_TRAINING = "quality rests on training returns: only the trainer can act with its policy"
MARGIN = 1.1
"""Memory grows about with the batch; a smaller batch is compiled once it may just fit."""


def probe(emit: Emit) -> None:
    """Say what the device is and which versions run."""
    emit("probed", **device_facts(jax.devices()[0]), versions=versions())


def peaks(emit: Emit) -> None:
    """Measure what the device reaches; the fields are those of `tuner.peaks.Peaks`."""
    emit("peaks", **measure_peaks(jax.devices()[0]).as_json())


def random_policy(request: RandomRequest, emit: Emit) -> None:
    """Evaluate the uniformly random policy, once for each seed."""
    env, env_params = build_environment(request.workload)
    returns = [evaluate_random(env, env_params, seed) for seed in request.seeds]
    facts = environment_facts(env, env_params)
    if request.workload.trainer is not None:
        facts["notes"].append(JUDGED_BY_TRAINING)
    emit("random", returns=returns, **facts)


def largest_fit(request: FitRequest, emit: Emit) -> None:
    """Find the first candidate whose program fits; candidates come largest batch first."""
    device = jax.devices()[0]
    counter = CompileCounter()
    limit = limit_bytes(device, request.memory_limit_bytes, request.reserve_bytes)
    tried: list[dict[str, Any]] = []
    skip_above: float | None = None
    for hardware in request.candidates:
        batch = hardware["num_envs"] * hardware["num_steps"]
        if skip_above is not None and batch > skip_above:
            continue
        program = compile_training(build(request.workload, hardware), counter, device.platform)
        tried.append({"hardware": hardware, "predicted_bytes": program.predicted_bytes})
        predicted = program.predicted_bytes
        if limit is None or predicted is None or predicted <= limit:
            emit("fits", hardware=hardware, limit_bytes=limit, tried=tried)
            return
        skip_above = batch * limit / predicted * MARGIN
    emit("fits", hardware=None, limit_bytes=limit, tried=tried)
