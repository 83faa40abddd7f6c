"""Train with a profile: our PPO to the user's own number of env-steps, in a child that is watched.

What is trained is decided in `tuner.training_plan`, and how in `tuner.child.training`; here is the
conversation with the child, and which of its ends are faults.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from storage.atomic import atomic_write_text
from storage.errors import StorageUnavailable
from tuner.bench import Bench, Say
from tuner.classification import classify
from tuner.devices.detect import open_device
from tuner.errors import NothingFeasible, Refused, TunerError, UsageError
from tuner.hardware import differing_fact, hardware_facts
from tuner.interrupts import Interrupts
from tuner.isolation import GRACE_S, Child, Launcher
from tuner.outcome import Outcome, OutOfMemory
from tuner.protocol import STOP, CheckpointedRequest, Event
from tuner.training_files import LOCK_FILE, LOGS_FOLDER, RESULT_FILE
from tuner.training_plan import (
    TrainingPlan,
    differences_of_shapes,
    make_plan,
    refuse_other_training,
    stored_training,
)
from tuner.training_result import Trained, judge, stored_result

BLOCK_S = 1.0
"""A block of training should last about so long: it is what a Ctrl-C waits for."""
UNKNOWN_BLOCKS = 1000
"""Blocks of a training whose speed nothing tells beforehand."""
_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a training stands after a block; `sps` is the block's, `eta_s` for all that is left."""

    env_steps: int
    total_steps: int
    sps: float
    mean_return: float | None
    eta_s: float


OnBlock = Callable[[Status], None]


def train(
    profile: Path,
    flags: Mapping[str, object],
    *,
    folder: Path,
    resume: bool,
    strict: bool,
    say: Say,
    on_block: OnBlock,
) -> Trained:
    """Train with a profile and keep everything in a folder.

    Args:
        profile: its file.
        flags: fields of `TrainingSettings` and of a study's workload; None means not given.
        folder: takes checkpoints, metrics, logs and the result.
        resume: go on with the training in the folder.
        strict: refuse another device or workload than the profile's, and fewer environments than
            asked for, instead of warning.
        say: tells the user a line.
        on_block: sees how far it is.

    Raises:
        InvalidProfile, UsageError: the profile, a flag or the folder is wrong.
        Refused: the folder holds this or another training; or by `strict`.
        NothingFeasible: it does not fit in memory with any number of environments.
        StorageUnavailable: the disk took no more; the last checkpoint is as it was.
        TunerError: training diverged, or its process died.
        KeyboardInterrupt: the user stopped it; after the first request there is a checkpoint.
    """
    words = "training ends after its block, with a checkpoint", "training is ended at once"
    device = open_device()
    plan = make_plan(profile, flags, device_kind=device.info().kind)
    stored_training(folder, resume=resume)
    with _held(folder), Interrupts(*words) as interrupts:
        stored = stored_training(folder, resume=resume)
        identity = plan.identity()
        if stored is not None:
            refuse_other_training(stored, identity)
            finished = stored_result(folder, total_steps=plan.settings.total_steps)
            if finished is not None:
                say(f"{folder} is trained already, to {finished.env_steps:,} env-steps")
                return finished
        for line in plan.announcements:
            say(line)
        launcher = Launcher(folder / LOGS_FOLDER, preload=plan.config.env)
        timeout_s = plan.config.timeout
        with Bench(device, launcher, interrupts, timeout_s=timeout_s, say=say) as bench:
            watched = _Watched(plan=plan, strict=strict, bench=bench, on_block=on_block)
            for difference in plan.differences:
                watched.warn(difference)
            request = _request(plan, folder, stored, identity)
            return watched.run(request, folder)


def _request(
    plan: TrainingPlan, folder: Path, stored: Mapping[str, Any] | None, identity: Mapping[str, Any]
) -> CheckpointedRequest:
    total = plan.settings.total_steps
    expected = plan.profile.expected_sps
    return CheckpointedRequest(
        workload=plan.config.workload(),
        hardware=stored["hardware"] if stored else plan.hardware.as_dict(),
        seed=plan.settings.seed,
        total_steps=total,
        block_env_steps=expected * BLOCK_S if expected else total / UNKNOWN_BLOCKS,
        updates_per_block=stored["updates_per_block"] if stored else None,
        folder=str(folder.resolve()),
        facts={"profile": plan.profile.profile, "identity": dict(identity)},
        is_resumed=stored is not None,
        checkpoint_every_s=plan.settings.checkpoint_every,
        keep_checkpoints=plan.settings.keep_checkpoints,
        cache_dir=str(plan.settings.compilation_cache().resolve()),
        memory_limit_bytes=plan.settings.memory_limit,
        reserve_bytes=plan.settings.reserve,
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which dies with this process."""
    lock = FileLock(folder / LOCK_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise Refused(
            f"--checkpoint-dir must have one training at a time, but {folder} is in use; wait for "
            "it or stop it"
        ) from None
    except OSError as error:
        raise UsageError(
            f"--checkpoint-dir must be a folder that can be written, but got {folder}: "
            f"{error.strerror or error}; choose another"
        ) from None
    with lock:
        yield


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One training as it is watched: what its child has said, and what the user must hear."""

    plan: TrainingPlan
    strict: bool
    bench: Bench
    on_block: OnBlock
    is_other_device: bool = False
    warnings: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    saved: int = 0
    _done_env_steps: int = 0
    _began: float | None = None

    def run(self, request: CheckpointedRequest, folder: Path) -> Trained:
        """Run the child to its end, whatever end that is, and judge what came of it."""
        child, held = self.bench.take(f"train-{time.strftime('%Y%m%d-%H%M%S')}.log")
        try:
            self._converse(child, replace(request, reserve_bytes=request.reserve_bytes + held))
        except BaseException:
            child.end(0)
            raise
        returncode = child.end(GRACE_S)
        last = self.events[-1] if self.events else None
        if last is None or last.name != "done":
            self._fail(last, classify(self.events, returncode, child.log_tail()), request)
        if last.data["stopped"]:
            self.bench.say(f"stopped; {self._kept()}; go on with the same command and --resume")
            raise KeyboardInterrupt
        trained = judge(
            self.plan,
            self.events,
            folder=folder,
            warnings=self.warnings,
            is_other_device=self.is_other_device,
        )
        atomic_write_text(folder / RESULT_FILE, json.dumps(trained.as_dict(), indent=1) + "\n")
        return trained

    def warn(self, text: str) -> None:
        """Tell the user loudly what differs from the profile.

        Raises:
            Refused: it is to be strict.
        """
        if self.strict:
            raise Refused(
                f"--strict must have the profile's device and workload, but {text}; leave "
                "--strict out to train all the same"
            )
        self.warnings.append(text)
        self.bench.say(f"WARNING: {text}; what the profile expects may not hold")

    def _converse(self, child: Child, request: CheckpointedRequest) -> None:
        child.send(request)
        is_told = False
        while not child.has_ended:
            event = child.next_event(_POLL_S)
            if event is not None:
                self.events.append(event)
                self._hear(event)
                if event.name == "done":
                    return
            if self.bench.interrupts.count >= 2:
                self.bench.say(f"ended at once; {self._kept()}")
                raise KeyboardInterrupt
            if self.bench.interrupts.count and not is_told:
                child.send(STOP)
                is_told = True

    def _hear(self, event: Event) -> None:
        say, data = self.bench.say, event.data
        match event.name:
            case "started":
                self._compare(data)
            case "stepped":
                fewer = f"num_envs={data['num_envs']}"
                if self.strict:
                    raise Refused(
                        "--strict must train with the numbers that it is given, but "
                        f"{_needs(data)}; lower --num-envs or leave --strict out"
                    )
                self.warnings.append(f"stepped down to {fewer}")
                say(f"WARNING: {_needs(data)}; stepping down to {fewer}, which was not measured")
            case "restored":
                self.saved = data["update"]
                for update in data["unread"]:
                    say(f"WARNING: the checkpoint of update {update} was unreadable and is removed")
                going_on = f"going on after update {self.saved:,}"
                say(going_on if self.saved else "no checkpoint was written: beginning anew")
            case "saved":
                self.saved = data["update"]
            case "trained":
                self.on_block(self._status(event))

    def _status(self, block: Event) -> Status:
        data = block.data
        if self._began is None:
            self._began = block.t - data["seconds"]
        self._done_env_steps += data["block_env_steps"]
        total, left = self.plan.settings.total_steps, data["env_steps"]
        return Status(
            env_steps=data["env_steps"],
            total_steps=total,
            sps=data["block_env_steps"] / data["seconds"],
            mean_return=data["metrics"]["mean_return"],
            eta_s=max(0, total - left) / self._done_env_steps * (block.t - self._began),
        )

    def _compare(self, started: Mapping[str, Any]) -> None:
        """Compare device and environment with the profile's, now that jax has told them."""
        profile = self.plan.profile
        self.bench.watch_what_jax_uses(started["platform"], started["device_kind"])
        here = hardware_facts(self.bench, started)
        key = differing_fact(profile.hardware, here)
        self.is_other_device = key is not None
        if not profile.hardware:
            self.warn("the profile does not say on what device it was measured")
        elif key is not None:
            self.warn(
                f"the device's {key} was {profile.hardware.get(key)!r} when the profile was "
                f"measured, and is {here[key]!r} here"
            )
        if not self.plan.differences:
            for difference in differences_of_shapes(profile, started):
                self.warn(difference)
        for note in started["notes"]:
            self.bench.say(note)
        measured, jax = profile.versions.get("jax"), started["versions"]["jax"]
        if measured not in (None, jax):
            self.bench.say(f"the profile was measured with jax {measured}; this is jax {jax}")

    def _kept(self) -> str:
        return f"the last checkpoint is of update {self.saved:,}" if self.saved else "no checkpoint"

    def _fail(self, last: Event | None, outcome: Outcome, request: CheckpointedRequest) -> NoReturn:
        """Raise what ended the child before its training was done."""
        name, data = (None, {}) if last is None else (last.name, last.data)
        if name == "refused" and request.is_resumed:
            raise Refused(
                f"{_needs(data)}, and a training that goes on keeps its num_envs; free memory, "
                "then --resume"
            )
        if name == "refused":
            raise NothingFeasible(
                f"{_needs(data)} even with the fewest environments; free memory, or lower "
                "--num-steps or --reserve"
            )
        if name == "disk":
            raise StorageUnavailable(
                f"the training must be written to the disk, but got: {data['text']}; "
                f"{self._kept()}: free space, then --resume"
            )
        if name == "diverged":
            raise TunerError(
                f"losses must stay finite, but {', '.join(data['names'])} did not within "
                f"{data['env_steps']:,} env-steps; {self._kept()}: lower --learning-rate"
            )
        if name == "rejected":
            raise UsageError(str(data["text"]))
        remedy = "lower --num-envs or --reserve" if isinstance(outcome, OutOfMemory) else "--resume"
        raise TunerError(
            f"training must run to its end, but {outcome.reason}; {self._kept()}: {remedy}"
        )


def _needs(data: Mapping[str, Any]) -> str:
    """Say why a compiled training is refused."""
    return (
        f"the training must fit in the {data['limit_bytes'] / 1e9:.4g} GB that are free, but needs "
        f"{data['predicted_bytes'] / 1e9:.4g} GB"
    )
