"""The CPU as a device: the trial's share of the cores it may use, and the rest of the machine.

Stands in for a GPU where there is none, and reports the host beside one. Apart from `nvml` because
here everything is read from the operating system (psutil), so it is there on every machine.
"""

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo
from tuner.devices.cgroup import read_limits

CHILDREN_REFRESH_S = 2.0
"""Listing the children reads the whole process table; one that ended since counts all the same,
for its CPU time has passed to its parent."""
MIN_RATE_S = 0.1
"""CPU time advances in ticks of 10 ms, so a rate over less than this would be mostly noise."""


def own_cores() -> tuple[int, ...]:
    """Return the numbers of the cores that this thread, and what it starts, may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(psutil.cpu_count() or 1))


def usable_cores(root: Path = Path("/")) -> float:
    """Return how many cores this process may keep busy: min(affinity, cgroup CPU quota)."""
    cores, quota = float(len(own_cores())), read_limits(root).cpu_cores
    return cores if quota is None else min(cores, quota)


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Return the most memory that this process could ever hold: min(physical, cgroup limit)."""
    physical = psutil.virtual_memory().total
    limit = read_limits(root).memory_bytes
    return physical if limit is None else min(physical, limit)


def memory_available_bytes(root: Path = Path("/")) -> int:
    """Return the memory that can be allocated now without swapping or meeting a cgroup limit."""
    available = psutil.virtual_memory().available
    headroom = read_limits(root).memory_headroom_bytes
    return available if headroom is None else min(available, headroom)


def cpu_model(root: Path = Path("/")) -> str:
    """Return the processor's name, from `/proc/cpuinfo` where that holds one."""
    cpuinfo = root / "proc/cpuinfo"
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True, slots=True)
class _Reading:
    """Seconds of CPU time so far: the cores', by use, and the watched processes'."""

    t: float
    total_s: float
    busy_s: float
    steal_s: float
    watched_s: float | None


@dataclass(frozen=True, slots=True)
class _Rates:
    """Percent: `util` of the usable cores, the others of the cores that may be run on."""

    util: float | None = None
    other_cpu_percent: float | None = None
    steal_percent: float | None = None


class CpuDevice:
    """The cores of this machine; utilisation is the watched processes' share of the usable ones.

    `util` = Δ(user + system time of the process and its children) / (wall × usable cores), in
    percent, since the sample before; `cpu_s` is the running total, `memory_bytes` the resident
    size of the process alone. `other_cpu_percent` (busy for anyone else) and `steal_percent`
    (taken by the hypervisor) are shares of the cores that this process could run on when the device
    was made: what others do on the rest of the machine is no load on it. Once the process is gone,
    all but the last are `None`. Before `watch` is called this process itself is watched.
    """

    util_source = "psutil"

    def __init__(self) -> None:
        self._info = DeviceInfo(
            kind="cpu",
            name=cpu_model(),
            memory_bytes=memory_limit_bytes(),
            uuid=None,
            driver=None,
            platform="cpu",
            cpu=cpu_model(),
            cores=usable_cores(),
        )
        self._cores = own_cores()
        self.watch(None)

    def info(self) -> DeviceInfo:
        """Return the processor's name, the usable cores and the memory limit."""
        return self._info

    def watch(self, pid: int | None) -> None:
        """Measure process `pid` and its children from now on; `None`: this process.

        A process that has ended already is no error: its fields are `None`.
        """
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None
        self._children: list[psutil.Process] = []
        self._children_listed_at = float("-inf")
        self._watched_s = 0.0
        self._rates = _Rates()
        self._reference = self._read()

    def watched_pids(self) -> frozenset[int]:
        """Return the watched process and its children, as far as they are still there."""
        self._list_children(time.monotonic())
        family = [*([self._process] if self._process else []), *self._children]
        return frozenset(process.pid for process in family if process.is_running())

    def sample(self) -> DeviceSample:
        """Read the machine and the watched processes now."""
        reading = self._read()
        if reading.t - self._reference.t >= MIN_RATE_S:
            self._rates = _rates_between(self._reference, reading, self._info.cores)
            self._reference = reading
        is_watched = reading.watched_s is not None
        return DeviceSample(
            t=reading.t,
            util=self._rates.util if is_watched else None,
            cpu_s=reading.watched_s,
            memory_bytes=self._resident_bytes(),
            other_cpu_percent=self._rates.other_cpu_percent if is_watched else None,
            steal_percent=self._rates.steal_percent,
        )

    def close(self) -> None:
        """Do nothing: no handle is held."""

    def _read(self) -> _Reading:
        now = time.monotonic()
        used = _cpu_times(self._cores)
        # Linux counts guests within user and nice as well.
        guests = used.get("guest", 0.0) + used.get("guest_nice", 0.0)
        total = sum(used.values()) - guests
        steal = used.get("steal", 0.0)
        idle = used["idle"] + used.get("iowait", 0.0)
        return _Reading(now, total, total - idle - steal, steal, self._read_watched(now))

    def _read_watched(self, now: float) -> float | None:
        """Return the CPU seconds of the process and its children since they began."""
        if self._process is None:
            return None
        self._list_children(now)
        try:
            if not self._process.is_running():
                return None
            # Parent first: a child reaped between the two readings is then missed once, never
            # counted twice, and the maximum below keeps the total from falling.
            total = _cpu_s(self._process) + sum(map(_child_cpu_s, self._children))
        except psutil.Error:
            return None
        self._watched_s = max(self._watched_s, total)
        return self._watched_s

    def _list_children(self, now: float) -> None:
        if self._process is None or now - self._children_listed_at < CHILDREN_REFRESH_S:
            return
        self._children_listed_at = now
        try:
            self._children = self._process.children(recursive=True)
        except psutil.Error:
            self._children = []

    def _resident_bytes(self) -> int | None:
        if self._process is None:
            return None
        try:
            resident = self._process.memory_info().rss
        except psutil.Error:
            return None
        # A process that has ended but was not yet waited for is listed with no memory.
        return resident or None


def _cpu_times(cores: Sequence[int]) -> dict[str, float]:
    """Return the seconds by use of some cores together; of all where they cannot be told apart."""
    each = psutil.cpu_times(percpu=True)
    if max(cores) >= len(each):  # cores that are switched off have no line, and shift the others
        return dict(psutil.cpu_times()._asdict())
    times = [each[core]._asdict() for core in cores]
    return {use: sum(core[use] for core in times) for use in times[0]}


def _cpu_s(process: psutil.Process) -> float:
    """Return its CPU time, with that of children it has already waited for."""
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def _child_cpu_s(process: psutil.Process) -> float:
    """Return a child's CPU time; once it is gone that has passed to its parent, which leaves 0."""
    try:
        return _cpu_s(process) if process.is_running() else 0.0
    except psutil.NoSuchProcess:
        return 0.0


def _rates_between(before: _Reading, after: _Reading, cores: float) -> _Rates:
    """Return the rates between two readings; the cores' are `None` if their clock stood still."""
    watched_s = None
    if before.watched_s is not None and after.watched_s is not None:
        watched_s = after.watched_s - before.watched_s
    util = None if watched_s is None else _percent(watched_s, (after.t - before.t) * cores)
    total_s = after.total_s - before.total_s
    if total_s <= 0:
        return _Rates(util=util)
    other = None
    if watched_s is not None:
        other = _percent(after.busy_s - before.busy_s - watched_s, total_s)
    return _Rates(util, other, _percent(after.steal_s - before.steal_s, total_s))


def _percent(part: float, whole: float) -> float:
    """Return the share in percent, held to 0-100 against the ticks of the kernel's clocks."""
    return min(100.0, max(0.0, 100.0 * part / whole))
