"""The bench on which trials run: one device, watched and locked, one trial at a time.

It joins the trial process, the device's monitor and the lock; what is tried, and what becomes of
the result, is decided elsewhere.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tuner.device_lock import DeviceLock
from tuner.devices.base import Device, SharedDevice
from tuner.devices.cpu import CpuDevice
from tuner.devices.monitor import GPUMonitor
from tuner.devices.unread import UnreadDevice
from tuner.errors import TunerError, UsageError
from tuner.interrupts import Interrupts
from tuner.isolation import Child, Launcher, run_trial
from tuner.measurement import MUST_BE_FINITE, Measurement, Roof, Watch, measure, window_of
from tuner.observer import NOBODY, Asked, Began, Heard, Observer
from tuner.outcome import Diverged, Outcome
from tuner.peaks import Peaks
from tuner.protocol import Event, FitRequest, Question, TrainRequest
from tuner.space import HardwareConfig

QUESTION_S = 300.0
"""Least time for a question, however short a trial must be: it may compile many programs."""
SAMPLE_S = 0.25
"""Time between two samples of the device in the measuring window."""
POLL_S = 0.5
"""Time between two looks at a device that another study measures on."""
ANSWERS = {
    "probe": "probed",
    "peaks": "peaks",
    "preflight": "traced",
    "random": "random",
    "fit": "fits",
    "memory": "analysed",
    "target": "described",
}

Say = Callable[[str], None]
"""Tells the user a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to measure: a config, under which numbers it is kept, and with what request."""

    config: HardwareConfig
    trial: int
    replicate: int
    request: TrainRequest

    @property
    def log_name(self) -> str:
        """File name of the trial's log."""
        suffix = f"-r{self.replicate}" if self.replicate else ""
        return f"trial-{self.trial:04d}{suffix}.log"


class NotWanted(Exception):
    """While the device was waited for, what it was wanted for has come to an end."""


class _ChildEnded(TunerError):
    """The child ended before it answered a question."""


class Bench:
    """Runs trials on one device. Use it as a context manager: it holds the device's lock."""

    def __init__(
        self,
        device: Device,
        launcher: Launcher,
        interrupts: Interrupts,
        *,
        timeout_s: float,
        say: Say,
        log_name: str = "calibration.log",
        observer: Observer = NOBODY,
    ) -> None:
        """Make a bench of a device.

        Args:
            device: what trials run on; closed with the bench.
            launcher: starts their processes; closed with the bench.
            interrupts: what the user asks meanwhile.
            timeout_s: of one trial.
            say: tells the user a line.
            log_name: of the process that answers questions.
            observer: sees what is asked and measured.
        """
        self.device: Device = device
        self.interrupts = interrupts
        self.peaks: Peaks | None = None
        self.sample_s: float | None = SAMPLE_S  # None leaves the device unwatched
        self.is_wanted: Callable[[], bool] = lambda: True  # asked while the device is waited for
        self.observer = observer
        self._launcher = launcher
        self._timeout_s = timeout_s
        self._log_name = log_name
        self.say = say
        self._lock = DeviceLock(device.info())
        self._asked: Child | None = None
        self._held = 0
        self._watched: tuple[GPUMonitor, float] | None = None

    def __enter__(self) -> "Bench":
        self._take_device()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_questions()
        self._launcher.close()
        self.device.close()
        self._lock.release()

    def watch_what_jax_uses(self, platform: str, device_kind: str) -> None:
        """Read another device than the one found if jax computes elsewhere.

        Args:
            platform: of jax: `cpu`, `gpu`, `cuda`, `rocm`, …
            device_kind: jax's name of the device.
        """
        if platform != "cpu":
            # Importing gymnax opens the device, which a spare must not do beside a trial.
            self._launcher.preload = None
        if (platform == "cpu") == (self.device.info().kind == "cpu"):
            return
        self.device.close()
        if platform == "cpu":
            self.device = CpuDevice()
        else:
            self.device = UnreadDevice(device_kind, platform=platform)
        if self._lock.is_held:
            self._lock.release()
            self._lock = DeviceLock(self.device.info())
            self._take_device()

    def ask(self, request: Question) -> Event:
        """Return the answer to a question about device, environment or memory.

        A child that ends over it, killed from outside perhaps, is followed by one more.

        Raises:
            UsageError: the environment or one of its parameters is at fault.
            TunerError: the question could not be answered.
        """
        try:
            return self._ask_once(request)
        except _ChildEnded as error:
            self.say(f"{error}; asking another one")
            return self._ask_once(request)

    def _ask_once(self, request: Question) -> Event:
        if self._asked is None:
            self._held = self._held_by_others()
            self._asked = self._launcher.take(self._log_name)
        if isinstance(request, FitRequest):
            request = replace(request, reserve_bytes=request.reserve_bytes + self._held)
        self._asked.send(request)
        self.observer.see(Asked(request.kind))
        try:
            return self._answer(self._asked, ANSWERS[request.kind])
        except TunerError:
            self._end_questions()  # whoever can do without the answer asks another child
            raise

    def measure(
        self,
        order: Order,
        *,
        on_block: Callable[[Event], Outcome | None],
        give_up_at: float | None = None,
    ) -> Measurement:
        """Run one trial to its end and return what was measured of it.

        Args:
            order: what to run.
            on_block: sees every timed block; an outcome ends the trial with it.
            give_up_at: monotonic time at which the trial is interrupted; None for never.
        """
        self._end_questions()
        child = self._launcher.take(order.log_name)
        reserve_bytes = order.request.reserve_bytes + self._held_by_others()
        monitor = None
        if self.sample_s is not None:
            monitor = GPUMonitor(interval=self.sample_s, device=self.device)

        began = Began(
            trial=order.trial,
            replicate=order.replicate,
            config=order.config,
            env_steps=order.request.env_steps,
            samples=lambda: () if monitor is None else monitor.samples,
        )
        self.observer.see(began)

        def on_event(event: Event) -> Outcome | None:
            self.observer.see(Heard(event))
            if event.name == "compiled" and monitor is not None:
                monitor.start_monitoring(child.pid)
            if event.name == "warm" and monitor is not None:
                self._watched = monitor, event.t
            if event.name == "measured":
                if monitor is not None:
                    monitor.stop_monitoring()
                self._launcher.prepare()
            if event.name != "block":
                return None
            return _divergence(event, order.request) or on_block(event)

        try:
            run = run_trial(
                child,
                replace(order.request, reserve_bytes=reserve_bytes),
                timeout_s=self._timeout_s,
                interrupts=self.interrupts,
                on_event=on_event,
                give_up_at=give_up_at,
            )
        finally:
            self._watched = None
            if monitor is not None:
                monitor.stop_monitoring()
        window = window_of(run)
        return measure(
            run,
            config=order.config,
            trial=order.trial,
            replicate=order.replicate,
            watch=Watch(monitor.get_stats(*window), monitor.samples, monitor.own_percent)
            if monitor is not None and window is not None
            else None,
            roof=Roof(self.peaks, order.request.workload.dtype),
        )

    def util_so_far(self) -> float | None:
        """Return the utilisation since the running trial's window has opened, in percent.

        From the samples that there are: the device is not asked.
        """
        if self._watched is None:
            return None
        monitor, opened = self._watched
        latest = max((sample.t for sample in monitor.samples), default=opened)
        return None if latest <= opened else monitor.get_stats(opened, latest).util

    def take(self, log_name: str) -> tuple[Child, int]:
        """Return a fresh child, for work that is no trial, and the bytes that others hold."""
        self._end_questions()
        held = self._held_by_others()
        return self._launcher.take(log_name), held

    def _held_by_others(self) -> int:
        """Return the device memory that is not ours to use, as far as the device tells.

        Asked only while no child of ours has the device open: in a container the driver may not
        tell whose memory it is.
        """
        if not isinstance(self.device, SharedDevice):
            return 0
        self.device.watch(None)
        return self.device.memory_of_others_bytes() or 0

    def _answer(self, child: Child, name: str) -> Event:
        waited_s, step_s = 0.0, 0.5
        limit_s = max(self._timeout_s, QUESTION_S)
        while not child.has_ended and waited_s < limit_s:
            if self.interrupts.count >= 2:
                raise KeyboardInterrupt
            event = child.next_event(step_s)
            if event is None:
                waited_s += step_s
            elif event.name == name:
                return event
            elif event.name == "rejected":
                raise UsageError(event.data["text"])
            elif event.name == "error":
                raise TunerError(
                    f"what is asked before the search must work, but got "
                    f"{event.data['type']}: {event.data['text']}"
                )
        words = f"its last words: {' '.join(child.log_tail(500).split())}"
        if child.has_ended:
            raise _ChildEnded(f"the child process must answer, but ended; {words}")
        raise TunerError(
            f"the child process must answer within {limit_s:g} s (--timeout), but was silent; "
            f"raise --timeout; {words}"
        )

    def _end_questions(self) -> None:
        """End the child that answered questions, so that a trial has the device to itself."""
        if self._asked is not None:
            self._asked.end(grace_s=0)
            self._asked = None

    def _take_device(self) -> None:
        if not self._lock.acquire():
            self.say(f"waiting for {self.device.info().name}: another study is measuring on it")
            self._wait_for_device()

    def _wait_for_device(self) -> None:
        while self.interrupts.count == 0:
            time.sleep(POLL_S)
            if self._lock.acquire():
                return
            if not self.is_wanted():
                raise NotWanted
        raise KeyboardInterrupt


def _divergence(block: Event, request: TrainRequest) -> Outcome | None:
    """Return the divergence in a block: JSON carries what is not finite as null.

    Blocks past the budget only time: how many there are depends on the machine's noise.
    """
    is_within = request.is_timed_only and block.data["env_steps"] <= request.env_steps
    if not block.data["learning"] and not is_within:
        return None
    metrics = block.data["metrics"]
    lost = [name for name in MUST_BE_FINITE if name in metrics and metrics[name] is None]
    if not lost:
        return None
    return Diverged(
        f"{', '.join(lost)} stopped being finite within {block.data['env_steps']} env-steps; "
        "lower --learning-rate if many configs do"
    )
