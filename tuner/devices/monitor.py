"""Watches a device from a thread and cuts what it saw to a window.

Apart from the devices because it knows nothing of drivers, only when to ask; apart from `stats`
because that knows nothing of threads.
"""

import threading
import time
from types import TracebackType
from typing import Self

from storage.records import DeviceSample
from tuner.devices.base import Device
from tuner.devices.detect import open_device
from tuner.devices.stats import DeviceStats, Window, reduce_window
from tuner.errors import UsageError

__all__ = ["DeviceStats", "GPUMonitor"]

ANSWER_S = 5.0
"""How long a device may take to answer before it counts as hung."""


class GPUMonitor:
    """Samples a device every `interval` seconds on a daemon thread, with monotonic time stamps.

    Start it before the measuring window and ask for the window's figures while it runs: the
    samples on either side are what the window's edges are interpolated from.
    """

    def __init__(
        self, device_id: int = 0, interval: float = 0.25, *, device: Device | None = None
    ) -> None:
        """Watch `device`, else what `open_device(device_id)` finds.

        Raises:
            UsageError: `interval` is not positive.
            DeviceUnavailable: GPU `device_id`, not 0, cannot be read.
        """
        if not interval > 0:
            raise UsageError(f"interval must be positive, but got {interval}; 0.25 s is usual")
        self._is_owner = device is None
        self._device = open_device(device_id) if device is None else device
        self._interval = interval
        self._samples: list[DeviceSample] = []
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid: int | None = None
        self._failure: str | None = None
        self._own_cpu_s = self._watched_s = 0.0

    @property
    def device(self) -> Device:
        """The device that is watched."""
        return self._device

    @property
    def samples(self) -> tuple[DeviceSample, ...]:
        """What was seen since the last start, in the order of time."""
        return tuple(self._samples)

    @property
    def failure(self) -> str | None:
        """Why sampling ended before it was stopped; `None` when it did not."""
        return self._failure

    @property
    def own_percent(self) -> float | None:
        """CPU time of the sampling thread as a share of the time that it watched, in percent."""
        if self._watched_s <= 0:
            return None
        return 100 * self._own_cpu_s / self._watched_s

    @property
    def is_running(self) -> bool:
        """Whether it was started and not yet stopped, even if sampling has failed since."""
        return self._thread is not None

    def start_monitoring(self, pid: int | None = None) -> None:
        """Begin afresh, with the first sample taken before this returns.

        Args:
            pid: the process whose share is measured; `None` leaves what the device watches.

        Does nothing when it is running already, unless `pid` is another process: then that one
        is measured, from now.
        """
        if self._thread is not None and pid in (None, self._pid):
            return
        self.stop_monitoring()
        if pid is not None:
            self._device.watch(pid)
        self._pid = pid
        self._samples = []
        self._failure = None
        self._own_cpu_s = self._watched_s = 0.0
        self._take()
        # Its own event, so that a thread that hung in the driver cannot come back to life.
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stopping,), name="device-monitor", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # a trial may have used up the threads that a user may have
            self._thread, self._failure = None, f"sampling could not be started: {error}"

    def stop_monitoring(self) -> None:
        """Take a last sample and end the thread; does nothing when it is not running."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(timeout=ANSWER_S)
        self._thread = None
        self._take()

    def get_current(self) -> DeviceSample:
        """Return the latest sample while running, else read the device now.

        Raises:
            Exception: whatever the device raises, when it is read now.
        """
        if self._thread is not None and self._samples:
            return self._samples[-1]
        return self._device.sample()

    def get_stats(self, start: float | None = None, end: float | None = None) -> DeviceStats:
        """Reduce the samples to the window from `start` to `end`, monotonic seconds.

        Without `start` it begins at the first sample, without `end` it ends at the last. Takes
        another sample first when the window reaches past the last and the monitor is running.

        Raises:
            UsageError: the window ends before it starts.
        """
        samples = self._samples
        if self._thread is not None and (end is None or not samples or samples[-1].t < end):
            self._take()
        first = samples[0].t if samples else 0.0
        last = samples[-1].t if samples else 0.0
        window = Window(first if start is None else start, last if end is None else end)
        if window.end < window.start:
            raise UsageError(
                f"a window must end after it starts, but got {window.start} to {window.end}"
            )
        return reduce_window(
            tuple(samples),
            window,
            info=self._device.info(),
            util_source=self._device.util_source,
            failure=self._failure,
        )

    def close(self) -> None:
        """Stop, and close the device unless it was given."""
        self.stop_monitoring()
        if self._is_owner:
            self._device.close()

    def __enter__(self) -> Self:
        self.start_monitoring()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, stopping: threading.Event) -> None:
        started = time.monotonic()
        due = started + self._interval
        while self._failure is None and not stopping.wait(max(0.0, due - time.monotonic())):
            self._take()
            # A late sample shifts those after it instead of being followed by a burst.
            due = max(due + self._interval, time.monotonic())
            if not stopping.is_set():
                self._own_cpu_s = time.thread_time()
                self._watched_s = time.monotonic() - started

    def _take(self) -> None:
        """Add a sample, or note why there can be no more; never raises."""
        if self._failure is not None:
            return
        if not self._reading.acquire(timeout=ANSWER_S):
            self._failure = f"the device must answer within {ANSWER_S:g} s, but gave no answer"
            return
        try:
            self._samples.append(self._device.sample())
        except Exception as error:  # whatever a driver raises is a fact about the measurement
            self._failure = f"sampling ended with {type(error).__name__}: {error}"
        finally:
            self._reading.release()
