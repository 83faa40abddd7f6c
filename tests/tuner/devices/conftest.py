"""The stub driver, compiled once, and a machine with one H100 of it for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pynvml
import pytest

from tests.tuner.devices.driver import Driver, compile_driver
from tuner.devices.cuda import CudaDevice
from tuner.devices.nvml import NvmlDevice

OpenNvml = Callable[..., NvmlDevice]


@pytest.fixture(scope="session")
def driver_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled libraries."""
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(
    driver_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Driver]:
    """A machine with one H100, which this process and its children find.

    At the end nothing may be left open in the library.
    """
    machine = Driver(driver_folder, tmp_path / "driver.txt")
    machine.add_card()
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "JAX_PLATFORMS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    # The binding loads its library once in a process; afterwards it is to find the machine's own.
    monkeypatch.setattr(pynvml, "nvmlLib", machine.nvml)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    yield machine
    assert machine.nvml.stubInitialised() == 0
    assert machine.nvml.stubSamples() == 0


@pytest.fixture
def open_nvml(driver: Driver) -> Iterator[OpenNvml]:
    """Open devices as `NvmlDevice` does, to be closed at the end of the test."""
    with ExitStack() as stack:

        def open_one(which: int | CudaDevice = 0, *, util_source: str | None = None) -> NvmlDevice:
            return stack.enter_context(closing(NvmlDevice(which, util_source=util_source)))

        yield open_one
