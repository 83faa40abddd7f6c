"""One trial, inside its process: compile, gate, warm up, train in timed blocks, evaluate.

Under `--goal time-to-return` the target return takes the place of the budget; a trial that is timed
only ends as soon as its throughput is known.

The order is the point. Memory is judged before anything is allocated; the warm-up runs on a state
that is thrown away, so that the whole budget lies inside the measuring window; the peak is read
before the evaluation can add to it; and the policies that are evaluated are those of the milestones
and of exactly the budget's end, even where further blocks were timed.
"""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tuner.child import faults
from tuner.child.compiles import CompileCounter
from tuner.child.evaluation import (
    NOT_JUDGED,
    evaluate_policies,
    params_changed,
    training_return,
)
from tuner.child.facts import device_facts, environment_facts
from tuner.child.memory import (
    PeakMemory,
    exceeds,
    held_bytes,
    limit_bytes,
    resident_bytes,
    threads,
)
from tuner.child.peaks import probe
from tuner.child.program import Built, Program, block_means, build, compile_training, run_block
from tuner.protocol import MILESTONES, TrainRequest
from tuner.throughput import Block, is_wide, measure_throughput, student_t

Emit = Callable[..., None]

MAX_BLOCKS = 32
"""Timed blocks of a budget at most; a multiple of four, so that blocks end at ¼, ½ and ¾."""

TIMED_S = (3.0, 15.0)
"""Seconds that a trial which is timed only runs at least and, should it stay unsteady, at most."""
TIMED_BLOCK_S = 0.25
"""About how long its blocks are, of whole updates: however short an update is, they are few."""

MAX_EXTRA = 0.5
"""Blocks that only narrow the interval take at most this share of the budget's own time."""


def train(request: TrainRequest, emit: Emit, stop: threading.Event) -> None:
    """Run one trial and send its events; see `tuner.protocol`."""
    goal = _Goal(request)
    counter = CompileCounter()
    device = jax.devices()[0]
    built = build(
        request.workload,
        request.hardware,
        faults.learning_rate_factor(request.fault),
        env_steps=request.env_steps,
        seed=request.seed,
    )
    emit("started", **device_facts(device), **environment_facts(built.env, built.env_params))
    program = compile_training(built, counter, device.platform)
    limit = limit_bytes(device, request.memory_limit_bytes, request.reserve_bytes)
    emit(
        "compiled",
        lower_s=program.lower_s,
        compile_s=program.compile_s,
        cached=program.cached,
        predicted_bytes=program.predicted_bytes,
        limit_bytes=limit,
        flops=program.cost.flops,
        bytes=program.cost.bytes,
        kernels=program.cost.kernels,
        work_is_lower_bound=program.cost.is_lower_bound,
    )
    gate_is_off = faults.before_allocating(request.fault)
    if not gate_is_off and exceeds(program.predicted_bytes, limit):
        emit("refused", predicted_bytes=program.predicted_bytes, limit_bytes=limit)
        return
    _train_and_evaluate(request, goal, built, program, counter, emit, stop)


def block_lengths(updates: int) -> list[int]:
    """Split a number of updates into at most `MAX_BLOCKS` blocks of nearly equal length."""
    blocks = min(updates, MAX_BLOCKS)
    edges = [updates * block // blocks for block in range(blocks + 1)]
    return [end - start for start, end in itertools.pairwise(edges)]


def _train_and_evaluate(
    request: TrainRequest,
    goal: "_Goal",
    built: Built,
    program: Program,
    counter: CompileCounter,
    emit: Emit,
    stop: threading.Event,
) -> None:
    key = jax.random.key(request.seed)
    started = time.monotonic()
    block_means(_sync(program.run(program.init(key), jnp.int32(1)))[1])
    carry = _sync(program.init(key))
    # All of it: the copy below compiles nothing.
    initial = jax.tree.map(jnp.copy, built.actor_of(carry))
    batch_size = request.hardware["num_envs"] * request.hardware["num_steps"]
    lengths = block_lengths(math.ceil(request.env_steps / batch_size))
    device = jax.devices()[0]
    peak = PeakMemory(device, carry)
    student_t(1.0)  # imports scipy now and not between two blocks
    compiles = counter.compiles
    emit("warm", seconds=time.monotonic() - started)

    window = _Window(program, batch_size, emit, stop, request.fault)
    is_learning = not request.is_timed_only
    album = _Album(request, built)
    for length in goal.schedule(lengths) if is_learning else _until_timed(window):
        carry = window.block(carry, length, learning=is_learning)
        if stop.is_set():
            emit("done", stopped=True)
            return
        album.add(carry, window.env_steps)
        if goal.is_over(window):
            break
    trained = jax.tree.map(jnp.copy, built.actor_of(carry))
    returns, env_steps = list(window.returns), window.env_steps
    if is_learning:
        carry = window.narrow(carry, lengths[-1], goal)
    reading, recompiles = peak.read(), counter.compiles - compiles
    changed = params_changed(initial.params, trained.params)
    del carry
    emit(
        "measured",
        peak_bytes=reading.bytes,
        memory_source=reading.source,
        recompiles=recompiles,
        env_steps=env_steps,
        # Before the parent hears of the end: it then starts a spare, which takes whole cores.
        probe=probe(device) if request.probe else None,
    )
    judged: dict[str, Any]
    if not is_learning:
        judged = dict(NOT_JUDGED)
    elif built.policy_fn is None:
        judged = training_return(returns)
    else:
        judged = evaluate_policies(built, [*album.actors, trained])
    emit("done", stopped=False, params_changed=changed, **judged)


def _until_timed(window: "_Window") -> Iterator[int]:
    """Return the lengths of blocks, in updates, until the throughput is known or time is up."""
    length = 1
    least_s, most_s = TIMED_S
    while True:
        yield length
        is_known = window.seconds >= least_s and not window.is_wide
        if is_known or (window.seconds >= most_s and len(window.returns) > 1):
            return
        length = max(1, round(length * TIMED_BLOCK_S / window.last_s))


class _Goal:
    """What training is to reach: the budget of env-steps, or a return within some time."""

    def __init__(self, request: TrainRequest) -> None:
        self._return = request.until_return
        training_s = math.inf if request.training_s is None else request.training_s
        self._deadline = time.monotonic() + training_s

    def schedule(self, lengths: list[int]) -> Iterable[int]:
        """Return the lengths of the blocks, without end where a return is to be reached."""
        if self._return is None:
            return lengths
        return itertools.chain(lengths, itertools.repeat(lengths[-1]))

    def is_over(self, window: "_Window") -> bool:
        """Whether the last block reached the return, or another one would take too long."""
        if self._return is None:
            return False
        reached = window.returns[-1]
        return (reached is not None and reached >= self._return) or not self.leaves_time(window)

    def leaves_time(self, window: "_Window") -> bool:
        """Whether another block like the last one would end in time."""
        return time.monotonic() + window.last_s <= self._deadline


class _Album:
    """Copies of what acted at each of `MILESTONES`, to be evaluated when the window has closed.

    They lie in the host's memory, so that they are no part of the peak of an accelerator's.
    """

    def __init__(self, request: TrainRequest, built: Built) -> None:
        self.actors: list[Any] = []
        self._actor_of = built.actor_of
        shares = MILESTONES if request.at_milestones else ()
        self._left = [share * request.env_steps for share in shares]

    def add(self, carry: Any, env_steps: int) -> None:
        """Copy what acts after so many env-steps, once for each milestone passed since."""
        if self._left and env_steps >= self._left[0]:
            actor = jax.tree.map(np.array, self._actor_of(carry))
            while self._left and env_steps >= self._left[0]:
                self._left.pop(0)
                self.actors.append(actor)


class _Window:
    """The measuring window: runs blocks, times each to its very end, and reports them."""

    def __init__(
        self,
        program: Program,
        batch_size: int,
        emit: Emit,
        stop: threading.Event,
        fault: str | None,
    ) -> None:
        self._program = program
        self._device = jax.devices()[0]
        self._batch_size = batch_size
        self._emit = emit
        self._stop = stop
        self._fault = fault
        self.env_steps = 0
        self._blocks: list[Block] = []
        self.returns: list[float | None] = []

    @property
    def seconds(self) -> float:
        """Seconds of all blocks."""
        return sum(seconds for _, seconds in self._blocks)

    @property
    def is_wide(self) -> bool:
        """Whether more blocks are worth their time."""
        return is_wide(measure_throughput(self._blocks))

    @property
    def last_s(self) -> float:
        """Seconds of the last block."""
        return self._blocks[-1][1]

    def block(self, carry: Any, length: int, *, learning: bool = True) -> Any:
        """Run one block of `length` updates and send what it was."""
        ran = run_block(self._program, carry, jnp.int32(length))
        env_steps = length * self._batch_size
        self.env_steps += env_steps
        self._blocks.append((env_steps, ran.seconds))
        self.returns.append(ran.metrics["mean_return"])
        self._emit(
            "block",
            block=len(self._blocks) - 1,
            env_steps=self.env_steps,
            block_env_steps=env_steps,
            seconds=ran.seconds,
            metrics=ran.metrics,
            learning=learning,
            threads=threads(),
            held_bytes=held_bytes(self._device),
            resident_bytes=resident_bytes(),
        )
        faults.after_block(self._fault, len(self._blocks) - 1)
        return ran.carry

    def narrow(self, carry: Any, length: int, goal: _Goal) -> Any:
        """Time further blocks until the interval of the throughput is narrow, or time is up."""
        deadline = time.perf_counter() + MAX_EXTRA * self.seconds
        while (
            self.is_wide
            and time.perf_counter() < deadline
            and goal.leaves_time(self)
            and not self._stop.is_set()
        ):
            carry = self.block(carry, length, learning=False)
        return carry


def _sync(tree: Any) -> Any:
    return jax.block_until_ready(tree)
