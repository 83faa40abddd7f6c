"""What CUDA shows, asked of a stub of its driver in processes of their own."""

from pathlib import Path

import pytest

from tests.tuner.devices.driver import MIG_UUIDS, NAME, UUIDS, Driver
from tuner.devices import cuda
from tuner.devices.base import DeviceUnavailable
from tuner.devices.cuda import CudaDevice, CudaMissing, visible_devices


@pytest.fixture
def three(driver: Driver) -> Driver:
    """Three cards, of which the last is the fastest; the second is divided by MIG."""
    driver.add_card()
    driver.add_card(speed=2)
    driver.divide(1)
    return driver


def test_a_card_is_named_as_nvml_names_it(driver: Driver) -> None:
    assert visible_devices() == (
        CudaDevice(ordinal=0, uuid=f"GPU-{UUIDS[0]}", pci_bus_id="0000:65:00.0", name=NAME),
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        # CUDA's own order is by speed, with the first instance of a divided card.
        ({}, [f"GPU-{UUIDS[2]}", f"GPU-{UUIDS[0]}", f"MIG-{MIG_UUIDS[0]}"]),
        (
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            [f"GPU-{UUIDS[0]}", f"MIG-{MIG_UUIDS[0]}", f"GPU-{UUIDS[2]}"],
        ),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [f"GPU-{UUIDS[0]}"]),
        (
            {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            [f"GPU-{UUIDS[2]}", f"GPU-{UUIDS[0]}"],
        ),
        ({"CUDA_VISIBLE_DEVICES": f"GPU-{UUIDS[2]}"}, [f"GPU-{UUIDS[2]}"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-3333"}, [f"GPU-{UUIDS[2]}"]),
        ({"CUDA_VISIBLE_DEVICES": f"MIG-{MIG_UUIDS[1]}"}, [f"MIG-{MIG_UUIDS[1]}"]),
        # An unknown one hides itself and all that follow.
        ({"CUDA_VISIBLE_DEVICES": "0,9,1"}, [f"GPU-{UUIDS[2]}"]),
    ],
)
def test_the_driver_resolves_what_is_visible(
    three: Driver,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    expected: list[str],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    devices = visible_devices()
    assert [device.uuid for device in devices] == expected
    assert [device.ordinal for device in devices] == list(range(len(expected)))


def test_another_environment_may_be_asked_about(three: Driver) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "0", **three.environ}
    assert [device.uuid for device in visible_devices(environ)] == [f"GPU-{UUIDS[2]}"]


@pytest.mark.parametrize("missing", ["cuDeviceGetUuid", "cuDeviceGetUuid_v2"])
def test_either_version_of_the_uuid_will_do(driver: Driver, missing: str) -> None:
    driver.fail(missing, code=801)
    assert visible_devices()[0].uuid == f"GPU-{UUIDS[0]}"


def test_no_library_is_told_apart_from_no_device(driver: Driver, tmp_path: Path) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    # A file of that name that is no library stands for none, whatever this machine has.
    (empty / "libcuda.so.1").write_text("")
    with pytest.raises(CudaMissing, match="must have the CUDA driver"):
        visible_devices({"LD_LIBRARY_PATH": str(empty)})
    with pytest.raises(DeviceUnavailable, match=r"no CUDA-capable device .*\(100\) from cuInit"):
        visible_devices({**driver.environ, "CUDA_VISIBLE_DEVICES": "7"})


def test_a_driver_that_is_not_ready_says_so(driver: Driver) -> None:
    driver.fail("cuInit", code=802)
    with pytest.raises(DeviceUnavailable, match="system not yet initialized"):
        visible_devices()
    driver.fail("cuInit", code=999)
    with pytest.raises(DeviceUnavailable, match="error 999 from cuInit"):
        visible_devices()


def test_a_driver_that_hangs_is_left_alone(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.set({"slow.cuInit": 60_000})
    monkeypatch.setattr(cuda, "ANSWER_S", 0.5)
    with pytest.raises(DeviceUnavailable, match=r"within 0\.5 s, but gave no answer"):
        visible_devices()
