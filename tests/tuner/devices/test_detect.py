import json
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.tuner.devices.driver import MIG_UUIDS, NAME, UUIDS, Driver
from tests.tuner.studies import TUNER
from tuner.devices.base import DeviceUnavailable
from tuner.devices.cpu import CpuDevice
from tuner.devices.detect import find_device, hidden_gpu_reason, open_device
from tuner.devices.monitor import GPUMonitor
from tuner.devices.nvml import NvmlDevice
from tuner.devices.unread import UnreadDevice


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


def test_a_named_device_that_is_not_there_is_an_error(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeviceUnavailable, match="one of 1 GPUs counted from 0, but got 99"):
        open_device(99)
    with pytest.raises(DeviceUnavailable, match="got -1"):
        open_device(-1)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    with pytest.raises(DeviceUnavailable, match="JAX_PLATFORMS=cpu"):
        open_device(1)


def test_a_machine_without_a_driver_offers_its_cpu(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNER_TEST_DRIVER")
    found = find_device(util_source="gpm")
    assert isinstance(found.device, CpuDevice)
    assert found.no_gpu_reason is not None
    assert "no CUDA-capable device" in found.no_gpu_reason


@pytest.mark.parametrize(
    ("environ", "ordinal", "expected"),
    [
        ({}, 0, f"GPU-{UUIDS[1]}"),
        ({}, 1, f"GPU-{UUIDS[0]}"),
        ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 0, f"GPU-{UUIDS[0]}"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 0, f"GPU-{UUIDS[0]}"),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, 1, f"GPU-{UUIDS[1]}"),
        ({"CUDA_VISIBLE_DEVICES": f"GPU-{UUIDS[0]}"}, 0, f"GPU-{UUIDS[0]}"),
        ({"CUDA_VISIBLE_DEVICES": f"MIG-{MIG_UUIDS[1]}"}, 0, f"MIG-{MIG_UUIDS[1]}"),
    ],
)
def test_the_gpu_that_is_read_is_the_one_that_jax_computes_on(
    driver: Driver, environ: dict[str, str], ordinal: int, expected: str
) -> None:
    # Two cards, of which the second is the faster one and so CUDA's first; and a divided third.
    driver.add_card(speed=2)
    driver.add_card()
    driver.divide(2)
    with closing(open_device(ordinal, environ={**driver.environ, **environ})) as device:
        assert isinstance(device, NvmlDevice)
        assert device.info().uuid == expected
        assert "mapping" not in device.unavailable


def test_a_study_keeps_its_source(driver: Driver) -> None:
    driver.set_card(gpm=1, gpm2=40)
    for asked, source in ((None, "gpm"), ("nvml", "nvml")):
        with closing(open_device(util_source=asked)) as device:
            assert device.util_source == source


def test_without_cuda_s_library_the_index_is_nvml_s(driver: Driver, tmp_path: Path) -> None:
    driver.add_card(name="the other")
    (tmp_path / "libcuda.so.1").write_text("no library")
    environ = driver.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    with closing(open_device(1, environ=environ)) as device:
        assert isinstance(device, NvmlDevice)
        assert device.info().name == "the other"
        assert "NVML's index" in device.unavailable["mapping"]


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        (["nvmlInitWithFlags"], "must have NVIDIA's driver"),
        (["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByPciBusId_v2"], "found by NVML"),
    ],
)
def test_a_gpu_that_nvml_does_not_show_is_trained_on_unread(
    driver: Driver, functions: list[str], reason: str
) -> None:
    driver.fail(*functions, code=18)
    device = open_device()
    assert isinstance(device, UnreadDevice)
    info = device.info()
    assert (info.kind, info.platform, info.name) == ("gpu", "cuda", NAME)
    assert (info.uuid, info.pci_bus_id) == (f"GPU-{UUIDS[0]}", "0000:65:00.0")
    assert info.no_util_reason is not None
    assert reason in info.no_util_reason
    assert device.sample().util is None


def test_a_divided_card_is_never_read_for_an_instance_of_it(driver: Driver) -> None:
    # A CUDA without the newer call gives the card's UUID for the instance that it computes on.
    driver.divide()
    driver.fail("cuDeviceGetUuid_v2", code=500)
    device = open_device()
    assert isinstance(device, UnreadDevice)
    assert "a MIG instance must be found by its UUID" in str(device.info().no_util_reason)


def test_a_gpu_that_cuda_does_not_show_is_not_read(driver: Driver) -> None:
    driver.fail("cuInit", code=802)
    assert isinstance(open_device(), CpuDevice)
    with pytest.raises(DeviceUnavailable, match="system not yet initialized"):
        open_device(1)


def test_the_doctor_shows_the_card_by_its_whole_name(driver: Driver, tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(TUNER), "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(ended.stdout)["device"]
    assert (shown["kind"], shown["name"]) == ("gpu", NAME)
    assert (shown["uuid"], shown["driver"]) == (f"GPU-{UUIDS[0]}", "570.124.06")
    assert (shown["pci_bus_id"], shown["sm_clock_max_mhz"]) == ("00000000:65:00.0", 1980.0)
