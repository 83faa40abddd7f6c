"""Records of made-up measurements, for tests that judge and choose."""

from dataclasses import replace
from typing import Any

from storage.records import TrialRecord


def record(trial: int, *, replicate: int = 0, **changes: Any) -> TrialRecord:
    """Return a successful record of a config of its own (num_envs = 64·(trial + 1)), SPS ± 2 %."""
    sps = changes.get("sps") or 100_000.0
    successful = TrialRecord(
        trial=trial,
        replicate=replicate,
        num_envs=64 * (trial + 1),
        num_steps=64,
        num_minibatches=4,
        num_epochs=4,
        status="success",
        device_util=50.0,
        util_source="psutil",
        peak_memory_gb=1.0,
        predicted_memory_gb=0.9,
        memory_limit_gb=8.0,
        mean_return=10.0,
        entropy=0.4,
        sps=sps,
        sps_ci95=(0.98 * sps, 1.02 * sps),
        env_steps=1_000_000,
        gpu_score=0.625,
        quality_score=0.5,
        sps_score=0.5,
        final_score=0.55,
        quality_acceptable=True,
    )
    return replace(successful, **changes)


def failure(trial: int, status: str, *, replicate: int = 0, **changes: Any) -> TrialRecord:
    """Return the record of a measurement of the same config that did not succeed."""
    like = record(trial)
    return TrialRecord(
        trial=trial,
        replicate=replicate,
        num_envs=like.num_envs,
        num_steps=like.num_steps,
        num_minibatches=like.num_minibatches,
        num_epochs=like.num_epochs,
        status=status,
        reason="it did not work",
        **changes,
    )
