"""NVML's readings, through the real binding against a stub of the driver's library."""

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pynvml
import pytest

from storage.records import DeviceSample
from tests.tuner.devices.conftest import OpenNvml
from tests.tuner.devices.driver import MIG_UUIDS, NAME, UUIDS, Driver
from tuner.devices.base import SLOWDOWN_REASONS, DeviceUnavailable, SharedDevice
from tuner.devices.cuda import CudaDevice, visible_devices
from tuner.devices.monitor import GPUMonitor
from tuner.devices.nvml import NvmlDevice
from tuner.devices.stats import Window, reduce_window

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
READINGS = {
    "utilisation": ("gpu_util", ["nvmlDeviceGetUtilizationRates"]),
    "memory": ("memory_bytes", ["nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"]),
    "energy": ("energy_j", ["nvmlDeviceGetTotalEnergyConsumption"]),
    "power": ("power_w", ["nvmlDeviceGetPowerUsage"]),
    "temperature": ("temperature_c", ["nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV"]),
    "clocks": ("sm_clock_mhz", ["nvmlDeviceGetClockInfo"]),
    "throttling": (
        "throttle_reasons",
        [f"nvmlDeviceGetCurrentClocks{what}Reasons" for what in ("Event", "Throttle")],
    ),
    "compute processes": (
        "other_device_percent",
        [f"nvmlDeviceGetComputeRunningProcesses_{version}" for version in ("v2", "v3")],
    ),
}
"""By reading: the field that it fills and every call that can fill it."""
WITHOUT_GPM = {"sm activity", "sm occupancy", "tensor activity", "dram bandwidth", "mapping"}
"""What the card of these tests does not have, and what an index cannot tell."""


def shown(uuid: str, *, pci_bus_id: str = "0000:65:00.0") -> CudaDevice:
    return CudaDevice(ordinal=0, uuid=uuid, pci_bus_id=pci_bus_id, name="as CUDA calls it")


def refused(device: NvmlDevice) -> set[str]:
    return set(device.unavailable) - WITHOUT_GPM


def machine_fields(sample: DeviceSample) -> dict[str, object]:
    return {name: getattr(sample, name) for name, _ in READINGS.values()}


@pytest.mark.gpu
def test_a_real_card_tells_who_it_is() -> None:
    try:
        first = visible_devices()[0]
    except DeviceUnavailable as error:
        pytest.skip(f"needs an NVIDIA GPU: {error}")
    with closing(NvmlDevice(first)) as device:
        assert device.info().name.startswith("NVIDIA")
        assert device.info().uuid == first.uuid
        assert device.sample().memory_bytes is not None


def test_pynvml_is_imported_only_when_a_gpu_is_opened() -> None:
    code = "import sys, tuner.doctor, tuner.devices.monitor; print('pynvml' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_without_a_driver_the_reason_is_told(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNER_TEST_DRIVER")
    with pytest.raises(DeviceUnavailable, match=r"driver .* NVML Shared Library Not Found"):
        NvmlDevice()


def test_a_card_says_what_it_is(open_nvml: OpenNvml) -> None:
    device = open_nvml(shown(f"GPU-{UUIDS[0]}"))
    info = device.info()
    assert (info.kind, info.platform, info.is_mig) == ("gpu", "cuda", False)
    assert info.name == NAME
    assert (info.uuid, info.driver) == (f"GPU-{UUIDS[0]}", "570.124.06")
    assert info.pci_bus_id == "00000000:65:00.0"
    assert info.memory_bytes == 85_520_809_984
    assert info.compute_capability == (9, 0)
    assert (info.power_limit_w, info.sm_clock_max_mhz) == (700.0, 1980.0)
    assert info.no_util_reason is None
    assert isinstance(device, SharedDevice)
    assert "mapping" not in device.unavailable


def test_a_long_name_is_never_cut(driver: Driver, open_nvml: OpenNvml) -> None:
    name = "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition, engineering sample"
    driver.set_card(name=name)
    assert open_nvml().info().name == name


def test_readings_come_in_our_units(open_nvml: OpenNvml) -> None:
    device = open_nvml()
    sample = device.sample()
    assert (device.util_source, sample.util, sample.gpu_util) == ("nvml", 97.0, 97.0)
    assert sample.memory_bytes == 5_000_000_000
    assert sample.power_w == 350.5
    assert sample.energy_j == pytest.approx(123_456.789)
    assert sample.temperature_c == 61.0
    assert sample.sm_clock_mhz == 1755.0
    assert sample.throttle_reasons == 0x44
    assert sample.throttle_reasons & SLOWDOWN_REASONS == 0x40
    assert sample.other_device_percent == 0.0
    assert (sample.sm_util, sample.sm_occupancy) == (None, None)
    assert (sample.tensor_util, sample.dram_util) == (None, None)
    assert sample.cpu_s is not None
    assert set(device.unavailable) == WITHOUT_GPM


@pytest.mark.parametrize(
    "code",
    [
        NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_UNKNOWN,
    ],
)
@pytest.mark.parametrize("reading", sorted(READINGS))
def test_each_reading_may_be_refused_alone(
    driver: Driver, open_nvml: OpenNvml, reading: str, code: int
) -> None:
    full = machine_fields(open_nvml().sample())
    assert None not in full.values()
    field, functions = READINGS[reading]
    driver.fail(*functions, code=code)
    device = open_nvml()
    assert machine_fields(device.sample()) == full | {field: None}
    assert refused(device) == {reading}
    if reading == "utilisation":
        assert device.info().no_util_reason == device.unavailable["utilisation"]


def test_a_reading_that_comes_back_is_no_longer_refused(
    driver: Driver, open_nvml: OpenNvml
) -> None:
    device = open_nvml()
    driver.fail("nvmlDeviceGetPowerUsage", code=NOT_SUPPORTED)
    assert device.sample().power_w is None
    driver.fail("nvmlDeviceGetPowerUsage", code=0)
    assert device.sample().power_w == 350.5
    assert refused(device) == set()


def test_older_drivers_answer_the_older_calls(driver: Driver, open_nvml: OpenNvml) -> None:
    newer = ("TemperatureV", "CurrentClocksEventReasons", "ComputeRunningProcesses_v3")
    driver.fail(*(f"nvmlDeviceGet{name}" for name in newer), code=FUNCTION_NOT_FOUND)
    driver.fail("nvmlDeviceIsMigDeviceHandle", code=FUNCTION_NOT_FOUND)
    driver.fail("nvmlDeviceGetMemoryInfo_v2", code=FUNCTION_NOT_FOUND)
    device = open_nvml()
    sample = device.sample()
    assert (sample.temperature_c, sample.throttle_reasons) == (61.0, 0x44)
    # The first version counts the driver's own 0.6 GB as used.
    assert sample.memory_bytes == 5_600_000_000
    assert device.users() == ()
    assert refused(device) == set()


def test_facts_of_the_card_may_be_refused(driver: Driver, open_nvml: OpenNvml) -> None:
    facts = ("Name", "UUID", "CudaComputeCapability", "EnforcedPowerLimit", "PciInfo_v3")
    driver.fail(*(f"nvmlDeviceGet{name}" for name in facts), code=NOT_SUPPORTED)
    driver.fail("nvmlDeviceGetMaxClockInfo", "nvmlSystemGetDriverVersion", code=NOT_SUPPORTED)
    info = open_nvml().info()
    assert info.name == "NVIDIA GPU 0"
    assert (info.uuid, info.driver, info.pci_bus_id) == (None, None, None)
    assert (info.compute_capability, info.power_limit_w) == (None, None)
    assert info.sm_clock_max_mhz is None
    driver.fail("nvmlDeviceGetHandleByUUID", code=NOT_SUPPORTED)
    assert open_nvml(shown(f"GPU-{UUIDS[0]}")).info().name == "as CUDA calls it"


def test_a_lost_card_is_an_error_not_a_missing_reading(driver: Driver, open_nvml: OpenNvml) -> None:
    device = open_nvml()
    driver.set_card(lost=1)
    with pytest.raises(DeviceUnavailable, match="GPU 0 must answer, but got GPU is lost"):
        device.sample()


def test_a_card_lost_in_mid_window_leaves_the_reason(driver: Driver, open_nvml: OpenNvml) -> None:
    with GPUMonitor(interval=0.02, device=open_nvml()) as monitor:
        start = time.monotonic()
        _wait_for(monitor, samples=6)
        driver.set_card(lost=1)
        while monitor.failure is None:
            time.sleep(0.01)
        stats = monitor.get_stats(start, time.monotonic() + 10.0)
    assert (stats.util, stats.gpu_util) == (None, None)
    assert stats.util_reason is not None
    assert "GPU 0 must answer, but got GPU is lost" in stats.util_reason


def test_energy_that_falls_back_is_made_up_from_the_rest(
    driver: Driver, open_nvml: OpenNvml
) -> None:
    # 1 J from each sample to the next, but for the third interval, where the counter begins anew.
    device, samples = open_nvml(), []
    for number, millijoules in enumerate((7000, 8000, 9000, 0, 1000, 2000, 3000)):
        driver.set_card(energy_mj=millijoules)
        samples.append(replace(device.sample(), t=0.01 * number))
    window = Window(samples[0].t, samples[-1].t)
    stats = reduce_window(samples, window, info=device.info(), util_source="nvml")
    # 5 J in the time that is known: 0.06 s less 0.01 s.
    assert stats.power_w == pytest.approx(5.0 / 0.05)


def test_a_slow_driver_delays_the_sample_and_nothing_else(
    driver: Driver, open_nvml: OpenNvml
) -> None:
    device = open_nvml()
    driver.set({"slow.nvmlDeviceGetPowerUsage": 150})
    started = time.monotonic()
    sample = device.sample()
    assert sample.power_w == 350.5
    assert time.monotonic() - started >= 0.15
    assert sample.t - started < 0.15


def test_a_card_is_found_by_uuid_or_else_by_its_bus(driver: Driver, open_nvml: OpenNvml) -> None:
    driver.add_card(name="the other")
    assert open_nvml(shown(f"GPU-{UUIDS[1]}")).info().name == "the other"
    assert open_nvml(shown(f"MIG-{UUIDS[1]}")).info().name == "the other"
    by_bus = open_nvml(shown("GPU-unknown", pci_bus_id="0000:66:00.0"))
    assert by_bus.info().uuid == f"GPU-{UUIDS[1]}"
    with pytest.raises(DeviceUnavailable, match="must be found by NVML, but got Not Found"):
        open_nvml(shown("GPU-unknown", pci_bus_id="0000:99:00.0"))


def test_an_index_is_said_to_be_no_more_than_that(driver: Driver, open_nvml: OpenNvml) -> None:
    driver.add_card()
    device = open_nvml(1)
    assert device.info().uuid == f"GPU-{UUIDS[1]}"
    assert "NVML's index" in device.unavailable["mapping"]
    with pytest.raises(DeviceUnavailable, match="one of 2 GPUs counted from 0, but got 3"):
        open_nvml(3)


def test_closing_twice_shuts_down_once(driver: Driver) -> None:
    device, other = NvmlDevice(), NvmlDevice()
    device.close()
    device.close()
    assert driver.nvml.stubInitialised() == 1
    other.close()


def test_a_mig_instance_tells_what_is_its_own(driver: Driver, open_nvml: OpenNvml) -> None:
    driver.divide()
    device = open_nvml(shown(f"MIG-{MIG_UUIDS[1]}"))
    info, sample = device.info(), device.sample()
    assert (info.is_mig, info.uuid) == (True, f"MIG-{MIG_UUIDS[1]}")
    assert info.name == f"{NAME} MIG 1g.10gb"
    assert (info.memory_bytes, sample.memory_bytes) == (10_000_000_000, 2_000_000_000)
    assert (info.pci_bus_id, info.compute_capability) == ("00000000:65:00.0", (9, 0))
    # Clocks and what lowers them are the card's; its watts, joules and heat are everyone's.
    assert (sample.sm_clock_mhz, sample.throttle_reasons) == (1755.0, 0x44)
    assert (sample.power_w, sample.energy_j, sample.temperature_c) == (None, None, None)
    assert (sample.util, sample.gpu_util, info.power_limit_w) == (None, None, None)
    assert info.no_util_reason == "NVML has no utilisation of a MIG instance"
    assert {"utilisation", "power", "energy", "temperature"} <= refused(device)
    assert "all its MIG instances" in device.unavailable["power"]


def test_a_mig_instance_of_a_bare_name_gets_the_card_s_too(
    driver: Driver, open_nvml: OpenNvml
) -> None:
    driver.divide()
    driver.set_card(0, 0, name="MIG 1g.10gb")
    assert open_nvml(shown(f"MIG-{MIG_UUIDS[0]}")).info().name == f"{NAME} MIG 1g.10gb"


def test_a_divided_card_never_stands_for_its_instance(driver: Driver, open_nvml: OpenNvml) -> None:
    driver.divide()
    with pytest.raises(DeviceUnavailable, match="a MIG instance must be found by its UUID"):
        open_nvml(shown("MIG-unknown"))


def test_nvml_is_kept_for_a_study_that_began_with_it(open_nvml: OpenNvml) -> None:
    device = open_nvml(util_source="nvml")
    assert (device.util_source, device.sample().util) == ("nvml", 97.0)


@pytest.mark.parametrize("source", ["gpm", "psutil"])
def test_a_source_that_is_not_there_is_never_replaced(open_nvml: OpenNvml, source: str) -> None:
    device = open_nvml(util_source=source)
    sample = device.sample()
    assert (device.util_source, sample.util, sample.gpu_util) == (source, None, 97.0)
    assert device.info().no_util_reason is not None
    with GPUMonitor(interval=0.01, device=device) as monitor:
        _wait_for(monitor, samples=4)
        stats = monitor.get_stats()
    assert (stats.util, stats.util_source) == (None, source)
    assert stats.util_reason == device.info().no_util_reason
    assert stats.gpu_util == pytest.approx(97.0)


def _wait_for(monitor: GPUMonitor, *, samples: int) -> None:
    while len(monitor.samples) < samples and monitor.failure is None:
        time.sleep(0.005)
