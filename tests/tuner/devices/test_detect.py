import pytest

from tuner.devices.base import DeviceUnavailable
from tuner.devices.cpu import CpuDevice
from tuner.devices.detect import hidden_gpu_reason, open_device
from tuner.devices.monitor import GPUMonitor


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, None),
        ({"JAX_PLATFORMS": ""}, None),
        ({"JAX_PLATFORMS": "cuda,cpu"}, None),
        ({"CUDA_VISIBLE_DEVICES": "1"}, None),
        ({"JAX_PLATFORMS": "cpu"}, "JAX_PLATFORMS"),
        ({"JAX_PLATFORMS": "cpu,cuda"}, "JAX_PLATFORMS"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_what_keeps_jax_off_the_gpu(environ: dict[str, str], named: str | None) -> None:
    reason = hidden_gpu_reason(environ)
    assert (reason is None) == (named is None)
    assert reason is None or named is None or reason.startswith(named)


def test_jax_on_the_cpu_means_measuring_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert isinstance(open_device(), CpuDevice)
    with GPUMonitor() as monitor:
        assert isinstance(monitor.device, CpuDevice)


def test_a_named_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceUnavailable):
        open_device(99)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(DeviceUnavailable, match="JAX_PLATFORMS=cpu"):
        open_device(1)
