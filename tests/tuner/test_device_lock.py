"""Which studies exclude each other on a device: real locks, held by this process."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.device_lock import DeviceLock, identities
from tuner.devices.base import DeviceInfo
from tuner.devices.cpu import CpuDevice, own_cores

GPU = DeviceInfo(kind="gpu", name="a card", memory_bytes=None, uuid="GPU-1f/2", driver=None,
                 platform="cuda", cpu="x", cores=8.0)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cores = own_cores()
    yield
    os.sched_setaffinity(0, cores)


def test_a_gpu_is_locked_by_its_uuid_and_a_cpu_by_each_core() -> None:
    assert identities(GPU) == ["GPU-1f-2"]
    assert identities(replace(GPU, uuid=None)) == ["gpu"]
    assert identities(replace(GPU, kind="cpu"), cores=(0, 3)) == ["cpu-0", "cpu-3"]


def test_a_lock_is_had_by_one_at_a_time() -> None:
    first, second = DeviceLock(GPU), DeviceLock(GPU)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


@pytest.mark.skipif(len(own_cores()) < 2, reason="one core only")
def test_sets_of_cores_exclude_each_other_if_they_overlap() -> None:
    info, (one, *rest) = CpuDevice().info(), own_cores()
    whole = DeviceLock(info)
    os.sched_setaffinity(0, {one})
    first = DeviceLock(info)
    os.sched_setaffinity(0, rest)
    others = DeviceLock(info)
    assert first.acquire()
    assert others.acquire()  # other cores: both at once
    others.release()
    assert not whole.acquire()  # and nothing of it is kept:
    assert others.acquire()
    others.release()
    first.release()
    assert whole.acquire()
    assert not first.acquire()
    whole.release()
