"""What every device answers: who it is and how busy it is.

Apart from the devices themselves so that the monitor, the doctor and the tests depend on this
protocol and never on a driver.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from storage.records import DeviceSample
from tuner.errors import UsageError

SLOWDOWN_REASONS = 0xE8
"""Bits of `DeviceSample.throttle_reasons` that make a measurement suspect: hardware slowdown 0x8,
software thermal 0x20, hardware thermal 0x40, power brake 0x80 (`nvmlClocksEventReason*`)."""


class DeviceUnavailable(UsageError):
    """The device that was asked for cannot be read here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """What a device is; facts that do not change while a study runs.

    `name` is the whole name, never cut. `memory_bytes` is what the device has (for a CPU: what
    this process may use of it). `cpu` and `cores` (usable ones, see `cpu.usable_cores`) describe
    the host, whatever the device. `power_limit_w` is the limit in force. `is_mig` says that the
    device is a part of a card; `uuid`, `name` and `memory_bytes` are then the part's,
    `pci_bus_id` and `sm_clock_max_mhz` the card's. `no_util_reason` says why `DeviceSample.util`
    will be absent, where that is known from the start.
    """

    kind: Literal["gpu", "cpu"]
    name: str
    memory_bytes: int | None
    uuid: str | None
    driver: str | None
    platform: str
    cpu: str
    cores: float
    compute_capability: tuple[int, int] | None = None
    power_limit_w: float | None = None
    pci_bus_id: str | None = None
    sm_clock_max_mhz: float | None = None
    is_mig: bool = False
    no_util_reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUser:
    """A process that holds or uses the device.

    `pid` as the driver gives it, which inside a container may be the host's number. `memory_bytes`
    is what it holds. `sm_util` is the highest share of the device's multiprocessors that it was
    seen to use since the list was last asked for, in percent: 0 for one that only holds memory.
    `is_ours` says whether it is the watched process or a child of it, `None` where neither can be
    shown.
    """

    pid: int
    name: str | None
    memory_bytes: int | None
    sm_util: float | None
    is_ours: bool | None


class Device(Protocol):
    """A device that can be sampled from any thread, one call at a time."""

    @property
    def util_source(self) -> str:
        """What `DeviceSample.util` comes from: "gpm", "nvml", "psutil", "replay" or "none"."""

    def info(self) -> DeviceInfo:
        """Return what the device is."""

    def sample(self) -> DeviceSample:
        """Read the device now; a field it cannot tell is `None`, never 0.

        Raises:
            Exception: whatever makes further readings pointless, such as a lost device.
        """

    def watch(self, pid: int | None) -> None:
        """Measure the share of process `pid` and its children; `None`: of this process.

        Starts the rates and totals of the samples afresh. No-op where there is no such share.
        """

    def close(self) -> None:
        """Release the device; safe to call twice."""


@runtime_checkable
class SharedDevice(Protocol):
    """A device that can name the processes on it."""

    def users(self) -> tuple[DeviceUser, ...] | None:
        """Return the processes on the device, `None` where it does not tell."""

    def memory_of_others_bytes(self) -> int | None:
        """Return what others than the watched process hold of the device's memory.

        `None` where the memory of a process, or whose it is, cannot be told.
        """
