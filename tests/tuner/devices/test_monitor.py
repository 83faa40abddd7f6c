import subprocess
import sys
import threading
import time

import pytest

from storage.records import DeviceSample
from tests.tuner.devices.samples import CPU, GPU, seconds
from tuner.devices.base import DeviceInfo
from tuner.devices.cpu import CpuDevice
from tuner.devices.monitor import GPUMonitor
from tuner.devices.replay import ReplayDevice
from tuner.errors import UsageError

FAST = 0.002


class FaultyDevice:
    """Answers twice, then fails as a driver may."""

    util_source = "nvml"

    def __init__(self) -> None:
        self._answers = 2

    def info(self) -> DeviceInfo:
        return GPU

    def watch(self, pid: int | None) -> None:
        pass

    def sample(self) -> DeviceSample:
        if self._answers == 0:
            raise RuntimeError("GPU is lost")
        self._answers -= 1
        return DeviceSample(t=time.monotonic(), util=50.0)

    def close(self) -> None:
        pass


def monitors_alive() -> int:
    return sum(thread.name == "device-monitor" for thread in threading.enumerate())


def wait_for(monitor: GPUMonitor, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(monitor.samples) < count and monitor.failure is None:
        assert time.monotonic() < deadline
        time.sleep(FAST)


def test_a_recording_is_cut_to_a_window() -> None:
    # 2 CPU seconds a second on 4 cores: 50 %.
    with GPUMonitor(interval=FAST, device=ReplayDevice(seconds(20, cpu_s=2.0), CPU)) as monitor:
        wait_for(monitor, 20)
        stats = monitor.get_stats(start=4.5, end=9.5)
    assert stats.util == pytest.approx(50.0)
    assert stats.num_samples == 5
    assert stats.util_source == "replay"


def test_without_edges_the_window_is_all_that_was_seen() -> None:
    device = ReplayDevice(seconds(5, cpu_s=1.0), CPU)
    with GPUMonitor(interval=FAST, device=device) as monitor:
        wait_for(monitor, 5)
    stats = monitor.get_stats()
    assert stats.num_samples == 5
    assert stats.util == pytest.approx(25.0)


def test_the_end_of_a_recording_is_a_reason_only_past_it() -> None:
    with GPUMonitor(interval=FAST, device=ReplayDevice(seconds(6, cpu_s=1.0), CPU)) as monitor:
        wait_for(monitor, 7)
        assert monitor.get_stats(0, 5).util == pytest.approx(25.0)
        stats = monitor.get_stats(0, 50)
    assert stats.util is None
    assert stats.util_reason is not None
    assert "the recording has no more samples" in stats.util_reason


def test_a_sampling_fault_is_recorded() -> None:
    monitor = GPUMonitor(interval=FAST, device=FaultyDevice())
    monitor.start_monitoring()
    wait_for(monitor, 3)
    assert monitor.failure == "sampling ended with RuntimeError: GPU is lost"
    stats = monitor.get_stats()
    assert stats.util is None
    assert stats.util_reason is not None
    assert "GPU is lost" in stats.util_reason
    assert len(monitor.samples) == 2
    monitor.stop_monitoring()
    assert monitors_alive() == 0


def test_a_device_that_fails_at_once_does_not_fail_the_start() -> None:
    device = ReplayDevice([], GPU)
    with GPUMonitor(interval=FAST, device=device) as monitor:
        assert monitor.failure is not None
        assert monitor.get_stats().num_samples == 0


def test_start_and_stop_may_be_repeated_and_leave_no_thread() -> None:
    monitor = GPUMonitor(interval=FAST, device=CpuDevice())
    monitor.stop_monitoring()
    monitor.start_monitoring()
    monitor.start_monitoring()
    assert monitors_alive() == 1
    monitor.stop_monitoring()
    monitor.stop_monitoring()
    assert monitors_alive() == 0
    assert not monitor.is_running

    seen = monitor.samples
    monitor.start_monitoring()
    assert monitor.samples[0].t > seen[-1].t
    monitor.close()
    assert monitors_alive() == 0


def test_the_context_manager_ends_the_thread_on_an_error() -> None:
    monitor = GPUMonitor(interval=FAST, device=CpuDevice())
    with pytest.raises(RuntimeError, match="in the block"), monitor:
        raise RuntimeError("in the block")
    assert monitors_alive() == 0


def test_the_current_sample() -> None:
    monitor = GPUMonitor(interval=0.05, device=CpuDevice())
    assert monitor.get_current().t <= time.monotonic()
    assert monitor.samples == ()
    with monitor:
        assert monitor.get_current() in monitor.samples


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan")])
def test_the_interval_must_be_positive(interval: float) -> None:
    with pytest.raises(UsageError, match="interval must be positive"):
        GPUMonitor(interval=interval, device=CpuDevice())


def test_a_window_must_not_end_before_it_starts() -> None:
    monitor = GPUMonitor(device=CpuDevice())
    with pytest.raises(UsageError, match="must end after it starts"):
        monitor.get_stats(2.0, 1.0)


def test_a_real_process_is_followed_to_the_end_of_the_window() -> None:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        device = CpuDevice()
        monitor = GPUMonitor(interval=0.1, device=device)
        monitor.start_monitoring(process.pid)
        time.sleep(0.2)
        start = time.monotonic()
        time.sleep(0.8)
        # Asked for at once, so that the last regular sample lies before the end.
        stats = monitor.get_stats(start, time.monotonic())
        monitor.start_monitoring(process.pid)
        assert len(monitor.samples) > 5, "starting on the same process goes on"
    finally:
        process.kill()
        process.wait()
    time.sleep(0.3)
    assert monitor.samples[-1].cpu_s is None
    monitor.stop_monitoring()

    assert stats.util is not None
    assert 0 < stats.util <= 105 / device.info().cores
    assert stats.num_samples >= 5
    assert stats.peak_memory_bytes is not None
    assert (stats.energy_j, stats.avg_temperature, stats.throttle_reasons) == (None, None, None)


def test_watching_costs_little() -> None:
    with GPUMonitor(interval=0.25, device=CpuDevice()) as monitor:
        time.sleep(0.3)
        spent, start = time.process_time(), time.monotonic()
        time.sleep(2.0)
        share = (time.process_time() - spent) / (time.monotonic() - start)
        assert len(monitor.samples) >= 8
    assert share < 0.02


def test_another_process_starts_the_samples_afresh() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)
    ]
    try:
        with GPUMonitor(interval=0.05, device=CpuDevice()) as monitor:
            monitor.start_monitoring(processes[0].pid)
            first = monitor.samples[0].t
            monitor.start_monitoring(processes[1].pid)
            assert monitor.samples[0].t > first
            assert monitors_alive() == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()
