from pathlib import Path

import pytest

from tuner.devices.cgroup import CgroupLimits, read_limits

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "40 31 0:37 {root} /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
)
V1_UNLIMITED = "9223372036854771712\n"


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def version_2(root: Path, group: str, files: dict[str, str]) -> Path:
    proc = {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": V2_MOUNT}
    return lay_out(root, proc | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def version_1(root: Path, group: str, mount_root: str, files: dict[str, str]) -> Path:
    proc = {
        "proc/self/cgroup": f"4:cpu,cpuacct:{group}\n3:memory:{group}\n2:pids:{group}\n",
        "proc/self/mountinfo": V1_MOUNTS.format(root=mount_root),
    }
    return lay_out(root, proc | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


def test_version_2_reads_quota_memory_and_processes(tmp_path: Path) -> None:
    root = version_2(
        tmp_path,
        "/",
        {
            "cpu.max": "250000 100000\n",
            "memory.max": "1000000\n",
            "memory.current": "700000\n",
            "memory.stat": "anon 300000\ninactive_file 400000\nactive_file 0\n",
            "pids.max": "512\n",
        },
    )

    # 250 ms of CPU time each 100 ms are 2.5 cores. 400,000 of the 700,000 used bytes are cache
    # that would be dropped: 1,000,000 − (700,000 − 400,000) = 700,000 are left.
    assert read_limits(root) == CgroupLimits(
        cpu_cores=2.5, memory_bytes=1_000_000, memory_headroom_bytes=700_000, pids=512
    )


def test_version_2_max_is_no_limit(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000\n", "memory.max": "max\n", "pids.max": "max\n"}
    assert read_limits(version_2(tmp_path, "/", files)) == CgroupLimits()


def test_the_tightest_level_counts(tmp_path: Path) -> None:
    root = version_2(
        tmp_path,
        "/user.slice/job",
        {
            "user.slice/cpu.max": "100000 100000",
            "user.slice/job/cpu.max": "400000 100000",
            "user.slice/memory.max": "max",
            "user.slice/job/memory.max": "5000",
            "user.slice/other/memory.max": "1",
        },
    )
    limits = read_limits(root)
    assert limits.cpu_cores == 1.0
    assert limits.memory_bytes == 5000


def test_version_1_reads_quota_memory_and_processes(tmp_path: Path) -> None:
    root = version_1(
        tmp_path,
        "/job",
        "/",
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "50000\n",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            "memory/job/memory.limit_in_bytes": "2000\n",
            "memory/job/memory.usage_in_bytes": "1500\n",
            "memory/job/memory.stat": "inactive_file 9\ntotal_inactive_file 100\n",
            "memory/memory.limit_in_bytes": V1_UNLIMITED,
            "pids/job/pids.max": "max\n",
        },
    )
    # 2000 − (1500 − 100) = 600; the total counts, not the level's own 9.
    assert read_limits(root) == CgroupLimits(
        cpu_cores=0.5, memory_bytes=2000, memory_headroom_bytes=600
    )


def test_version_1_without_limits(tmp_path: Path) -> None:
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/memory.limit_in_bytes": V1_UNLIMITED,
    }
    assert read_limits(version_1(tmp_path, "/", "/", files)) == CgroupLimits()


@pytest.mark.parametrize(
    ("group", "mount_root"),
    [("/docker/abc", "/docker/abc"), ("/docker/abc", "/"), ("/../../abc", "/")],
)
def test_a_container_sees_its_limits_at_the_top_of_the_mount(
    tmp_path: Path, group: str, mount_root: str
) -> None:
    files = {"memory/memory.limit_in_bytes": "77"}
    assert read_limits(version_1(tmp_path, group, mount_root, files)).memory_bytes == 77


def test_a_mount_that_begins_at_a_parent_is_walked_below_it(tmp_path: Path) -> None:
    files = {"memory/abc/memory.limit_in_bytes": "77"}
    root = version_1(tmp_path, "/docker/abc", "/docker", files)
    assert read_limits(root).memory_bytes == 77


def test_a_full_group_has_no_headroom_left(tmp_path: Path) -> None:
    files = {"memory.max": "100", "memory.current": "130"}
    assert read_limits(version_2(tmp_path, "/", files)).memory_headroom_bytes == 0


def test_no_control_groups_at_all(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == CgroupLimits()
