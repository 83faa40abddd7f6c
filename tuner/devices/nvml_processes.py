"""Which processes are on a GPU, how much each holds and computes, and which of them are ours.

Apart from `nvml` because a driver may number processes as the host does while we live in a
container: telling our own process from others is then a matter of evidence, laid out here.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tuner.devices.base import DeviceUser
from tuner.devices.cpu import CpuDevice
from tuner.devices.nvml_handle import NvmlHandle

REFRESH_S = 1.0
"""The driver's own figures of processes are new about once a second."""
HOST_NAMESPACE = 0xEFFFFFFC
"""Inode of the first process namespace (PROC_PID_INIT_INO in the kernel's proc_ns.h)."""


class DeviceProcesses:
    """The processes on one device, and whose they are.

    A process is ours if it is the watched one or a child of it. In a container the driver may give
    the host's numbers, which match nobody's here. Then a process that came after the watched one
    was announced, and whose number is no process that can be seen here, must be ours if it is the
    only such. Of several, one that was beside an earlier trial is left out if that leaves one;
    else nothing is said of them.
    """

    def __init__(self, handle: NvmlHandle, host: CpuDevice) -> None:
        self._handle = handle
        self._host = host
        self._last_seen_us = 0
        self._read_at = float("-inf")
        self._watched: int | None = None
        self._verdicts: dict[int, bool | None] = {}
        self._seen_before: set[int] = set()
        self._seen_beside: set[int] = set()
        self.watch(None)

    def watch(self, pid: int | None) -> None:
        """Take process `pid` and its children as ours; `None`: this process.

        Processes on the device when only this process is watched belong to others.
        """
        if pid is None:
            self._seen_before, self._seen_beside = set(self._holders() or {}), set()
        if pid != self._watched:
            # Each trial is a process of its own, but some drivers number all of them as one.
            self._seen_beside |= {p for p, is_ours in self._verdicts.items() if not is_ours}
            self._verdicts = {}
        self._watched = pid
        self._read_at = float("-inf")
        self._sm_shares()  # what was computed until now belongs to no window

    def users(self) -> tuple[DeviceUser, ...] | None:
        """Return the processes that hold the device, `None` where the driver does not tell."""
        holders = self._holders()
        if holders is None:
            return None
        shares = self._sm_shares()
        ours = self._ours(holders)
        return tuple(
            DeviceUser(
                pid=pid,
                name=_process_name(pid),
                memory_bytes=memory,
                sm_util=None if shares is None else shares.get(pid, 0.0),
                is_ours=ours[pid],
            )
            for pid, memory in sorted(holders.items())
        )

    def memory_of_others_bytes(self, used_bytes: int) -> int | None:
        """Return what others hold of the `used_bytes` of the device, `None` where that is unknown.

        What no process accounts for counts as theirs: it is not free for us either.
        """
        holders = self._holders()
        if holders is None:
            return None
        ours = self._ours(holders)
        held = [holders[pid] for pid, is_ours in ours.items() if is_ours]
        known = [memory for memory in held if memory is not None]
        if None in ours.values() or len(known) < len(held):
            return None
        return max(0, used_bytes - sum(known))

    def other_device_percent(self) -> float | None:
        """Return the highest SM share of a process that is not ours since the last reading.

        `None` where it cannot be told, and within a second of the reading before.
        """
        now = time.monotonic()
        if now - self._read_at < REFRESH_S:
            return None
        self._read_at = now
        holders, shares = self._holders(), self._sm_shares()
        if holders is None:
            return None
        ours = self._ours(holders)
        if self._watched is not None and self._host.watched_pids() and not any(ours.values()):
            # Our own process is not in the list, so neither need others be.
            return None
        if shares is None:
            return 0.0 if all(ours.values()) else None
        whose = ours | self._whose_gone(shares.keys() - holders.keys())
        computing = {pid: share for pid, share in shares.items() if share > 0}
        if any(whose[pid] is None for pid in computing):
            return None
        return max((share for pid, share in computing.items() if not whose[pid]), default=0.0)

    def _holders(self) -> dict[int, int | None] | None:
        """Return the bytes held by each process on the device, `None` where it does not tell."""
        # By version, for the names without one raise no NVMLError under an older driver.
        compute, graphics = (
            self._handle.read(
                f"{kind.lower()} processes",
                (f"nvmlDeviceGet{kind}RunningProcesses_v3", self._handle.device),
                (f"nvmlDeviceGet{kind}RunningProcesses_v2", self._handle.device),
            )
            for kind in ("Compute", "Graphics")
        )
        if compute is None:
            return None
        holders: dict[int, int | None] = {}
        for process in [*(graphics or []), *compute]:
            holders[process.pid] = process.usedGpuMemory
        return holders

    def _ours(self, holders: Mapping[int, Any]) -> dict[int, bool | None]:
        """Say of each process whether it is ours; once ours has ended, a new one is not."""
        family = self._host.watched_pids()
        if not family:
            return {pid: self._verdicts.get(pid, False) for pid in holders}
        ours: dict[int, bool | None] = {pid: pid in family for pid in holders}
        if self._watched is not None and not any(ours.values()):
            ours |= self._among_hidden(holders)
        self._verdicts |= ours
        return ours

    def _among_hidden(self, holders: Iterable[int]) -> dict[int, bool | None]:
        """Judge the processes that no number tells from ours, by when they came."""
        is_host = _shares_host_namespace()
        hidden = [
            pid
            for pid in holders
            if pid not in self._seen_before and not (is_host and psutil.pid_exists(pid))
        ]
        fresh = [pid for pid in hidden if pid not in self._seen_beside]
        if len(fresh) == 1:
            return {pid: pid in fresh for pid in hidden}
        return dict.fromkeys(hidden)

    def _whose_gone(self, pids: Iterable[int]) -> dict[int, bool | None]:
        """Say whose the processes are that computed and hold the device no more."""
        family = self._host.watched_pids()
        # In a container the two lists may number one process differently.
        unknown = False if _shares_host_namespace() else None
        return {pid: pid in family or self._verdicts.get(pid, unknown) for pid in pids}

    def _sm_shares(self) -> dict[int, float] | None:
        """Return the highest SM share of each process since the last call, in percent.

        Source: `nvmlDeviceGetProcessUtilization`, which lists only processes that computed, and
        finds nothing when none did. Unsupported on a card that is divided into MIG instances.
        """
        nvml = self._handle.nvml
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(self._handle.device, self._last_seen_us)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND):
                return {}
            self._handle.raise_if_fatal(error)
            self._handle.unavailable["process utilisation"] = str(error)
            return None
        self._handle.unavailable.pop("process utilisation", None)
        shares: dict[int, float] = {}
        since = self._last_seen_us
        for sample in samples:
            self._last_seen_us = max(self._last_seen_us, sample.timeStamp)
            # A driver pads the list with empty entries, and may repeat what was told before.
            if sample.timeStamp > since and sample.smUtil <= 100:
                shares[sample.pid] = max(shares.get(sample.pid, 0.0), float(sample.smUtil))
        return shares


def _shares_host_namespace(root: Path = Path("/")) -> bool:
    """Say whether processes are numbered here as on the host; only Linux tells."""
    namespace = root / "proc/self/ns/pid"
    return namespace.exists() and namespace.stat().st_ino == HOST_NAMESPACE


def _process_name(pid: int) -> str | None:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return None
