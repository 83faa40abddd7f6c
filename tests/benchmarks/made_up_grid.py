"""A table with no measurement in it: times that add up from their parts, quality that is smooth."""

import math
import random

from grid import VERSION, Grid, Row

from storage.records import CurvePoint, TrialRecord
from tuner.measurement import Evaluation
from tuner.space import CPU_BASELINE, CPU_SPACE, HardwareConfig, SearchSpace

ENV_STEPS = 200_000
OPTIMUM = 0.45


def made_up_grid(
    space: SearchSpace = CPU_SPACE, *, repeats: int = 4, noise: float = 0.02, seed: int = 0
) -> Grid:
    """Return every config of a space, several times, as `record_grid.py` would write it."""
    draws = random.Random(seed)
    rows = [
        _row(config, repeat, draws, noise)
        for config in space.configs()
        for repeat in range(repeats)
    ]
    facts = {
        "version": VERSION,
        "device": {"kind": "cpu", "name": "made up", "cores": 2.0},
        "settings": {"env": "stress", "baseline": "64,64,4,4",
                     **{k: list(v) for k, v in space.choices().items()}},
        "space": {k: list(v) for k, v in space.choices().items()},
        "baseline": CPU_BASELINE.as_dict(),
        "env_steps": ENV_STEPS,
        "chance": {
            "returns": [0.0, 0.001, -0.001], "best_return": OPTIMUM, "notes": [],
            "per_step_return": True, "action_space": "discrete", "num_actions": 3,
            "obs_shape": [8],
        },
    }  # fmt: skip
    return Grid(facts, tuple(rows))


def update_s(config: HardwareConfig) -> float:
    """Return the seconds of one update: steps, rows of the batch, gradient steps."""
    rollout = config.num_steps * (4e-6 + 2e-7 * config.num_envs)
    gradient = config.num_epochs * (3e-5 * config.num_minibatches + 1e-6 * config.batch_size)
    return 1e-4 + rollout + gradient


def quality(config: HardwareConfig) -> float:
    """Return progress: best where batch and gradient steps are balanced."""
    steps = config.num_epochs * config.num_minibatches / config.batch_size
    return math.exp(
        -((math.log2(steps) + 7) ** 2) / 12 - (math.log2(config.batch_size) - 11) ** 2 / 40
    )


def _row(config: HardwareConfig, repeat: int, draws: random.Random, noise: float) -> Row:
    slow = max(0.5, draws.gauss(1.0, noise))
    sps = config.batch_size / update_s(config) / slow
    returns = OPTIMUM * min(1.0, max(0.0, quality(config) + draws.gauss(0.0, noise)))
    window_s = ENV_STEPS / sps
    curve = tuple(
        CurvePoint(
            block=n,
            env_steps=ENV_STEPS * (n + 1) // 32,
            seconds=window_s / 32,
            metrics={"mean_return": returns * (n + 1) / 32, "entropy": 0.5, "policy_loss": 0.0,
                     "value_loss": 0.1, "approx_kl": 0.01, "grad_norm": 0.5,
                     "explained_variance": 0.5, "clip_fraction": 0.1},
        )
        for n in range(32)
    )  # fmt: skip
    compile_s = 4.0 if repeat == 0 else 0.3
    record = TrialRecord(
        trial=0, replicate=repeat, **config.as_dict(), status="success", sps=sps,
        device_util=min(100.0, 50 + 4 * math.log2(config.batch_size)), util_source="psutil",
        peak_memory_gb=1e-5 * config.batch_size, predicted_memory_gb=1e-5 * config.batch_size,
        duration=1.0 + compile_s + window_s, env_steps=ENV_STEPS, window_s=window_s,
        mean_return=returns,
        phases={"start": 0.5, "compile": compile_s, "window": window_s, "evaluate": 0.5},
        compile_cached=repeat > 0,
    )  # fmt: skip
    return Row(record, curve, Evaluation(returns, 0.001, params_changed=True))
