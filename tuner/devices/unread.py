"""A device that trains but cannot be read: an accelerator without NVML, such as one under ROCm."""

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo
from tuner.devices.cpu import CpuDevice, cpu_model, usable_cores


class UnreadDevice:
    """Stands where a device's readings would: it has a name, and every reading is absent.

    Watching the host instead would pass its load off as the accelerator's.
    """

    util_source = "none"

    def __init__(
        self,
        name: str,
        *,
        platform: str,
        reason: str | None = None,
        uuid: str | None = None,
        pci_bus_id: str | None = None,
    ) -> None:
        """Name the device as jax or its driver does, and why it is not read.

        Args:
            name: the whole name.
            platform: jax's name of the platform, such as "cuda" or "rocm".
            reason: why nothing can be read; by default, that only NVIDIA's devices are.
            uuid: what tells it from others of its kind, where known.
            pci_bus_id: where it sits, where known.
        """
        self._host = CpuDevice()
        self._info = DeviceInfo(
            kind="gpu",
            name=name,
            memory_bytes=None,
            uuid=uuid,
            driver=None,
            platform=platform,
            cpu=cpu_model(),
            cores=usable_cores(),
            pci_bus_id=pci_bus_id,
            no_util_reason=reason or f"no counters are read under {platform}",
        )

    def info(self) -> DeviceInfo:
        """Return what is known: the name and the host."""
        return self._info

    def watch(self, pid: int | None) -> None:
        """Watch a process on the host."""
        self._host.watch(pid)

    def sample(self) -> DeviceSample:
        """Return what disturbs the host; of the device nothing is known."""
        host = self._host.sample()
        return DeviceSample(
            t=host.t,
            other_cpu_percent=host.other_cpu_percent,
            steal_percent=host.steal_percent,
        )

    def close(self) -> None:
        """Do nothing: nothing is open."""
