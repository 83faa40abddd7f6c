import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.tuner.devices.test_cgroup import version_2
from tuner.devices.cpu import (
    CpuDevice,
    cpu_model,
    memory_available_bytes,
    memory_limit_bytes,
    own_cores,
    usable_cores,
)

BUSY = "while True: pass"
IDLE = "import time; time.sleep(60)"
BUSY_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
SPENT_CHILD = (
    "import subprocess, sys, time;"
    "burn = 'import time\\nwhile time.process_time() < 0.4: pass';"
    "subprocess.run([sys.executable, '-c', burn]); print('done', flush=True); time.sleep(60)"
)


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()


def cpu_s_of(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def wait_until_busy(pid: int) -> None:
    deadline = time.monotonic() + 20
    while cpu_s_of(pid) < 0.05 and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_busy_process_uses_one_core() -> None:
    with python(BUSY) as process:
        wait_until_busy(process.pid)
        device = CpuDevice()
        device.watch(process.pid)
        before, spent = time.monotonic(), cpu_s_of(process.pid)
        time.sleep(0.6)
        sample = device.sample()
        wall, spent = time.monotonic() - before, cpu_s_of(process.pid) - spent

    # Others may be using the cores: it cannot have had more than one, and what it did have the
    # kernel tells (in ticks of 10 ms, at both ends).
    assert sample.util is not None
    assert sample.util == pytest.approx(100 * spent / wall / usable_cores(), abs=5)
    assert 0 < sample.util <= 105 / usable_cores()
    assert sample.cpu_s is not None
    assert sample.cpu_s > 0.05


def test_an_idle_process_uses_nothing_and_holds_memory() -> None:
    with python(IDLE) as process:
        time.sleep(0.3)
        device = CpuDevice()
        device.watch(process.pid)
        time.sleep(0.3)
        sample = device.sample()
    assert sample.util is not None
    assert sample.util < 10
    assert sample.memory_bytes is not None
    assert 1_000_000 < sample.memory_bytes < 200_000_000


def test_what_the_watched_process_does_is_not_foreign() -> None:
    with python(BUSY) as busy, python(IDLE) as idle:
        wait_until_busy(busy.pid)
        ours, theirs = CpuDevice(), CpuDevice()
        ours.watch(busy.pid)
        theirs.watch(idle.pid)
        time.sleep(0.5)
        mine, foreign = ours.sample(), theirs.sample()
    assert mine.other_cpu_percent is not None
    assert foreign.other_cpu_percent is not None
    assert mine.util is not None
    # They differ by the share of the cores that the busy process had (ticks of 10 ms in about
    # half a second on every core, at both ends).
    share = mine.util * usable_cores() / len(own_cores())
    assert foreign.other_cpu_percent - mine.other_cpu_percent == pytest.approx(share, abs=8)
    assert mine.steal_percent is not None
    assert 0 <= mine.steal_percent <= 100


@pytest.mark.skipif(len(own_cores()) < 2, reason="one core only")
def test_load_on_cores_that_may_not_be_used_is_not_foreign() -> None:
    first, *rest = own_cores()
    with python(BUSY) as busy, python(IDLE) as idle:
        os.sched_setaffinity(busy.pid, {first})
        wait_until_busy(busy.pid)
        try:
            os.sched_setaffinity(0, {first})
            beside = CpuDevice()
            os.sched_setaffinity(0, rest)
            apart = CpuDevice()
        finally:
            os.sched_setaffinity(0, {first, *rest})
        before = psutil.cpu_times(percpu=True)
        for device in (beside, apart):
            device.watch(idle.pid)
        time.sleep(0.6)
        after = psutil.cpu_times(percpu=True)
        same, other = beside.sample(), apart.sample()
    assert beside.info().cores == min(1.0, usable_cores())
    # What else runs here may load every core; the kernel tells how much (ticks of 10 ms).
    for sample, cores in ((same, [first]), (other, rest)):
        total_s = sum(sum(after[c][:8]) - sum(before[c][:8]) for c in cores)
        idle_s = sum(sum(after[c][3:5]) - sum(before[c][3:5]) for c in cores)
        steal_s = sum(after[c].steal - before[c].steal for c in cores)
        used = 100 * (total_s - idle_s - steal_s) / total_s
        assert sample.other_cpu_percent == pytest.approx(used, abs=10)
    assert same.other_cpu_percent is not None
    assert same.other_cpu_percent > 20


def test_the_children_of_the_process_count() -> None:
    with python(BUSY_CHILD) as process:
        deadline = time.monotonic() + 20
        while not (children := psutil.Process(process.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        wait_until_busy(children[0].pid)
        device = CpuDevice()
        device.watch(process.pid)
        time.sleep(0.4)
        sample = device.sample()
        assert device.watched_pids() == {process.pid, children[0].pid}
    assert sample.util is not None
    assert sample.util > 0


def test_a_child_that_has_ended_still_counts() -> None:
    with python(SPENT_CHILD) as process:
        assert process.stdout is not None
        device = CpuDevice()
        device.watch(process.pid)
        assert process.stdout.readline() == "done\n"
        total = device.sample().cpu_s
    assert total is not None
    assert total >= 0.4


def test_a_process_that_vanished_is_unknown_not_idle() -> None:
    process = subprocess.Popen([sys.executable, "-c", IDLE])
    device = CpuDevice()
    device.watch(process.pid)
    time.sleep(0.15)
    assert device.sample().util is not None
    process.kill()
    process.wait()

    sample = device.sample()
    assert (sample.util, sample.cpu_s, sample.memory_bytes) == (None, None, None)
    assert sample.other_cpu_percent is None
    assert sample.steal_percent is not None
    assert device.watched_pids() == frozenset()
    device.watch(process.pid)
    assert device.sample().cpu_s is None


def test_this_process_is_watched_until_told_otherwise() -> None:
    device = CpuDevice()
    assert device.watched_pids() >= {os.getpid()}
    first = device.sample()
    assert first.cpu_s is not None
    assert first.util is None  # no interval yet
    device.close()


def test_info_names_the_machine() -> None:
    info = CpuDevice().info()
    assert (info.kind, info.platform) == ("cpu", "cpu")
    assert info.name == info.cpu == cpu_model()
    assert info.memory_bytes == memory_limit_bytes()
    assert info.cores == usable_cores()
    assert (info.uuid, info.driver) == (None, None)


def test_limits_of_the_control_group_hold(tmp_path: Path) -> None:
    files = {"cpu.max": "50000 100000", "memory.max": "4096000", "memory.current": "96000"}
    root = version_2(tmp_path, "/", files)
    assert usable_cores(root) == 0.5
    assert memory_limit_bytes(root) == 4_096_000
    assert memory_available_bytes(root) == 4_000_000


def test_without_a_control_group_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert memory_limit_bytes(tmp_path) == psutil.virtual_memory().total
    assert 0 < memory_available_bytes(tmp_path) <= psutil.virtual_memory().total


def test_a_processor_without_a_model_name_is_named_by_its_architecture(tmp_path: Path) -> None:
    assert cpu_model(tmp_path) != ""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nmodel name\t: Xeon: the 2nd\n")
    assert cpu_model(tmp_path) == "Xeon: the 2nd"
