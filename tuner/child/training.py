"""A training that is kept: compile, gate, go on from a checkpoint, train in blocks, evaluate.

Built of what trials are built of (`program`, `memory`, `evaluation`), so that what a profile
expects was measured by the same code. Apart from trials because its end is the user's and not the
measurement's: nothing is thrown away, and everything outlives a kill.
"""

import json
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from storage.atomic import atomic_write_text
from storage.metrics_log import MetricsLog
from tuner.child.checkpoints import CheckpointFault, Checkpoints
from tuner.child.compiles import CompileCounter
from tuner.child.evaluation import evaluate_policies, params_changed, training_return
from tuner.child.facts import device_facts, environment_facts, versions
from tuner.child.memory import exceeds, limit_bytes
from tuner.child.program import Built, Program, build, compile_training, run_block
from tuner.measurement import MUST_BE_FINITE
from tuner.protocol import CheckpointedRequest
from tuner.space import HardwareConfig, fewer_envs
from tuner.training_files import CHECKPOINTS_FOLDER, FACTS_FILE

Emit = Callable[..., None]

FEWEST_BLOCKS = 32
"""Blocks of a training at least, if it has so many updates: fewer would hide its progress."""


def train(request: CheckpointedRequest, emit: Emit, stop: threading.Event) -> None:
    """Train to `total_steps` and send the events; see `tuner.protocol`."""
    fitted = _fit(request, emit)
    if fitted is None:
        return
    request, built, program = fitted
    config = HardwareConfig(**request.hardware)
    updates = math.ceil(request.total_steps / config.batch_size)
    per_block = request.updates_per_block or _updates_per_block(request, config, updates)
    folder = Path(request.folder)
    try:
        facts = request.facts | {"hardware": config.as_dict(), "updates_per_block": per_block}
        atomic_write_text(folder / FACTS_FILE, json.dumps(facts, indent=1) + "\n")
        _Training(request, built, program, config, emit).run(updates, per_block, stop)
    except (CheckpointFault, OSError) as error:
        emit("disk", text=str(error))


def _fit(
    request: CheckpointedRequest, emit: Emit
) -> tuple[CheckpointedRequest, Built, Program] | None:
    """Compile for the largest number of environments that passes the gate; None if none does."""
    device, counter = jax.devices()[0], CompileCounter()
    limit = limit_bytes(device, request.memory_limit_bytes, request.reserve_bytes)
    is_first = True
    while True:
        built = build(
            request.workload, request.hardware, env_steps=request.total_steps, seed=request.seed
        )
        if is_first:
            facts = environment_facts(built.env, built.env_params)
            emit("started", **device_facts(device), **facts, versions=versions())
            is_first = False
        program = compile_training(built, counter, device.platform)
        predicted = program.predicted_bytes
        emit(
            "fitted",
            hardware=request.hardware,
            compile_s=program.lower_s + program.compile_s,
            predicted_bytes=predicted,
            limit_bytes=limit,
        )
        if not exceeds(predicted, limit):
            return request, built, program
        fewer = None if request.is_resumed else fewer_envs(HardwareConfig(**request.hardware))
        if fewer is None:
            emit("refused", predicted_bytes=predicted, limit_bytes=limit)
            return None
        emit("stepped", predicted_bytes=predicted, limit_bytes=limit, num_envs=fewer.num_envs)
        request = replace(request, hardware=fewer.as_dict())


def _updates_per_block(request: CheckpointedRequest, config: HardwareConfig, updates: int) -> int:
    wanted = round(request.block_env_steps / config.batch_size)
    return max(1, min(wanted, math.ceil(updates / FEWEST_BLOCKS)))


class _Training:
    """One process's part of a training, from its start or a checkpoint on."""

    def __init__(
        self,
        request: CheckpointedRequest,
        built: Built,
        program: Program,
        config: HardwareConfig,
        emit: Emit,
    ) -> None:
        self._built, self._program, self._config, self._emit = built, program, config, emit
        self._every_s = request.checkpoint_every_s
        folder = Path(request.folder)
        key = jax.random.key(request.seed)
        self._carry = jax.block_until_ready(program.init(key))
        self._initial = jax.tree.map(jnp.copy, built.actor_of(self._carry))
        self._checkpoints = Checkpoints(folder / CHECKPOINTS_FOLDER, keep=request.keep_checkpoints)
        self.saved: int | None = None
        self._restore(jax.eval_shape(built.init, key), is_expected=request.is_resumed)
        self._update = self.saved or 0
        self._log = MetricsLog(folder, after_update=self._update)

    def run(self, updates: int, per_block: int, stop: threading.Event) -> None:
        """Train up to update number `updates`, then evaluate, unless stopped before."""
        saved_at = time.monotonic()
        while self._update < updates and not stop.is_set():
            # Blocks end where they would in a training that was never stopped.
            length = min(per_block - self._update % per_block, updates - self._update)
            lost = self._block(length)
            if lost:
                self._emit("diverged", names=lost, env_steps=self._env_steps)
                return
            if time.monotonic() - saved_at >= self._every_s:
                self._save()
                saved_at = time.monotonic()
        if self.saved != self._update and self._update:
            self._save()
        self._log.close()
        if self._update < updates:
            self._emit("done", stopped=True)
            return
        trained = self._built.actor_of(self._carry)
        changed = params_changed(self._initial.params, trained.params)
        judged = (
            training_return([line["mean_return"] for line in self._log.lines])
            if self._built.policy_fn is None
            else evaluate_policies(self._built, [trained])
        )
        self._emit("done", stopped=False, params_changed=changed, **judged)

    @property
    def _env_steps(self) -> int:
        return self._update * self._config.batch_size

    def _restore(self, shapes: Any, *, is_expected: bool) -> None:
        found = self._checkpoints.restore(shapes)
        if found is not None:
            self.saved, self._carry, unread = found
            self._emit("restored", update=self.saved, unread=unread)
        elif is_expected:
            self._emit("restored", update=0, unread=[])

    def _block(self, length: int) -> list[str]:
        """Run a block and tell of it; return the metrics that are no longer finite."""
        ran = run_block(self._program, self._carry, jnp.int32(length))
        self._carry, self._update = ran.carry, self._update + length
        env_steps = length * self._config.batch_size
        own = {
            "update": self._update,
            "env_steps": self._env_steps,
            "seconds": ran.seconds,
            "sps": env_steps / ran.seconds,
        }
        self._log.add({**own, **ran.metrics, **own})  # a trainer may have such names, too
        self._emit(
            "trained",
            update=self._update,
            env_steps=self._env_steps,
            block_env_steps=env_steps,
            seconds=ran.seconds,
            metrics=ran.metrics,
        )
        return [n for n in MUST_BE_FINITE if not math.isfinite(ran.metrics.get(n) or 0.0)]

    def _save(self) -> None:
        """Bring the metrics to the disk, then the checkpoint that comes after them."""
        self._log.sync()
        started = time.monotonic()
        self._checkpoints.save(self._update, self._carry)
        self.saved = self._update
        self._emit("saved", update=self._update, seconds=time.monotonic() - started)
