"""Devices and samples that several of these tests share."""

from storage.records import DeviceSample
from tuner.devices.base import DeviceInfo

CPU = DeviceInfo(
    kind="cpu",
    name="Four cores",
    memory_bytes=8_000_000_000,
    uuid=None,
    driver=None,
    platform="cpu",
    cpu="Four cores",
    cores=4.0,
)
GPU = DeviceInfo(
    kind="gpu",
    name="NVIDIA H100 80GB HBM3",
    memory_bytes=85_520_809_984,
    uuid="GPU-1",
    driver="570.1",
    platform="cuda",
    cpu="Four cores",
    cores=4.0,
    compute_capability=(9, 0),
    power_limit_w=700.0,
)


def seconds(count: int, *, cpu_s: float) -> list[DeviceSample]:
    """One sample a second from t = 0, with `cpu_s` more CPU seconds in each."""
    return [DeviceSample(t=float(t), cpu_s=cpu_s * t) for t in range(count)]
