"""What the control groups of this process allow: CPU time, memory, number of processes.

Apart from the CPU device because containers and schedulers lay these out in two versions and at
several levels, and reading them is a matter of files alone: every function can be pointed at
another root. Formats: cgroup-v2.rst and cgroup-v1/ of the kernel's admin guide.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_Number = TypeVar("_Number", int, float)

UNLIMITED = 1 << 60
"""Version 1 writes "no limit" as the largest page-aligned number, just under 2⁶³."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """The tightest limit over all levels; `None` where there is none.

    `cpu_cores` is the CPU quota in cores, `memory_headroom_bytes` what can still be allocated
    before the memory limit is met (the page cache that the kernel would drop counts as free).
    """

    cpu_cores: float | None = None
    memory_bytes: int | None = None
    memory_headroom_bytes: int | None = None
    pids: int | None = None


def read_limits(root: Path = Path("/")) -> CgroupLimits:
    """Return the limits on this process, read from `proc/self` and the mounts below `root`.

    A system without control groups has no limits.
    """
    memory = list(_folders(root, "memory"))
    return CgroupLimits(
        cpu_cores=_least(_quota(folder) for folder in _folders(root, "cpu")),
        memory_bytes=_least(_memory_limit(folder) for folder in memory),
        memory_headroom_bytes=_least(_headroom(folder) for folder in memory),
        pids=_least(_number(folder / "pids.max") for folder in _folders(root, "pids")),
    )


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's group and of its ancestors, in either version."""
    memberships = _memberships(root)
    for line in _text(root / "proc/self/mountinfo").splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, *_, options = filesystem.split()
        if kind == "cgroup2":
            group = memberships.get("")
        elif kind == "cgroup" and controller in options.split(","):
            group = memberships.get(controller)
        else:
            continue
        if group is not None:
            mount_root, mount_point = mount.split()[3:5]
            yield from _levels(root / mount_point.lstrip("/"), group, mount_root)


def _memberships(root: Path) -> dict[str, str]:
    """Return the group of this process by controller; version 2 is the nameless controller."""
    groups = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), group))
    return groups


def _levels(top: Path, group: str, mount_root: str) -> Iterator[Path]:
    """Yield `top` and the folders from it down to `group`, as far as they are visible.

    In a container the mount may begin at the group itself (`mount_root`), and the group may be
    named from outside the mount (with `..`): then `top` is all that can be seen.
    """
    yield top
    below = group.removeprefix(mount_root.rstrip("/")).strip("/")
    folder = top
    for part in below.split("/") if below and ".." not in below else ():
        folder = folder / part
        yield folder


def _quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if len(words) == 2:
        quota, period = _parsed(words[0]), _parsed(words[1])
    else:
        quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _memory_limit(folder: Path) -> int | None:
    limit = _number(folder / "memory.max")
    return limit if limit is not None else _number(folder / "memory.limit_in_bytes")


def _headroom(folder: Path) -> int | None:
    limit = _memory_limit(folder)
    used = _number(folder / "memory.current")
    used = used if used is not None else _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    words = _text(folder / "memory.stat").split()
    stat = dict(zip(words[::2], words[1::2], strict=False))
    droppable = int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))
    return max(0, limit - max(0, used - droppable))


def _number(path: Path) -> int | None:
    return _parsed(_text(path).strip())


def _parsed(word: str) -> int | None:
    """Return the number in `word`; `None` for "max", -1, absence and numbers that mean no limit."""
    return int(word) if word.isdigit() and int(word) < UNLIMITED else None


def _text(path: Path) -> str:
    """Return what the file holds; a controller that is off, hidden or absent has no file."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _least(limits: Iterator[_Number | None]) -> _Number | None:
    return min((limit for limit in limits if limit is not None), default=None)
