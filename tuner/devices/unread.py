"""A device that trains but cannot be read: an accelerator without NVML, such as one under ROCm."""

import time

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo
from tuner.devices.cpu import cpu_model, usable_cores


class UnreadDevice:
    """Stands where a device's readings would: it has a name, and every reading is absent.

    Watching the host instead would pass its load off as the accelerator's.
    """

    util_source = "none"

    def __init__(self, name: str, *, platform: str) -> None:
        """Name the device as jax does."""
        self._info = DeviceInfo(
            kind="gpu",
            name=name,
            memory_bytes=None,
            uuid=None,
            driver=None,
            platform=platform,
            cpu=cpu_model(),
            cores=usable_cores(),
        )

    def info(self) -> DeviceInfo:
        """Return what is known: the name and the host."""
        return self._info

    def watch(self, pid: int | None) -> None:
        """Do nothing: no process can be watched."""

    def sample(self) -> DeviceSample:
        """Return the time alone."""
        return DeviceSample(t=time.monotonic())

    def close(self) -> None:
        """Do nothing: nothing is open."""
