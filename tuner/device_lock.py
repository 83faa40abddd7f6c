"""One study at a time on a device: locks of the device's identity that die with their owner.

Apart from the bench because of the cores: a CPU is as many devices as it has cores, and two studies
exclude each other as soon as one core is common to both, whether or not they are pinned.
"""

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from tuner.devices.base import DeviceInfo
from tuner.devices.cpu import own_cores
from tuner.private_folder import private_folder


class DeviceLock:
    """The lock of a device, the same for every study of a user on a machine."""

    def __init__(self, info: DeviceInfo) -> None:
        """Make the lock of a device; on a CPU of the cores that this thread may run on."""
        self._locks = [FileLock(path, mode=0o600) for path in _paths(identities(info))]

    def acquire(self) -> bool:
        """Take the lock if it is free, whole or not at all; whether it was taken."""
        for lock in self._locks:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.release()
                return False
        return True

    @property
    def is_held(self) -> bool:
        """Whether it was taken and not given back."""
        return any(lock.is_locked for lock in self._locks)

    def release(self) -> None:
        """Give back what is held of it."""
        for lock in self._locks:
            lock.release()


def identities(info: DeviceInfo, cores: Sequence[int] | None = None) -> list[str]:
    """Return the names under which a device is locked; `cores` are by default this thread's."""
    if info.kind == "cpu":
        return [f"cpu-{core}" for core in (own_cores() if cores is None else cores)]
    return ["".join(c if c.isalnum() else "-" for c in info.uuid or info.kind)]


def _paths(names: Sequence[str]) -> list[Path]:
    return [private_folder() / f"{name}.lock" for name in names]
