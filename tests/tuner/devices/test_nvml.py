"""NVML without a card: its absence is real here, its answers are played by the functions below.

The errors, structures and constants are those of `pynvml` itself.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from tuner.devices.base import SLOWDOWN_REASONS, DeviceUnavailable, SharedDevice
from tuner.devices.detect import open_device
from tuner.devices.nvml import NvmlDevice

NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
REFUSABLE = {
    "nvmlDeviceGetUtilizationRates": "utilisation",
    "nvmlDeviceGetMemoryInfo": "memory",
    "nvmlDeviceGetTotalEnergyConsumption": "energy",
    "nvmlDeviceGetPowerUsage": "power",
    "nvmlDeviceGetTemperatureV": "temperature",
    "nvmlDeviceGetTemperature": "temperature",
    "nvmlDeviceGetCurrentClocksEventReasons": "throttling",
    "nvmlDeviceGetCurrentClocksThrottleReasons": "throttling",
}
HIDDEN_PID, OTHER_HIDDEN_PID = 2**22 + 1, 2**22 + 2
"""Larger than any number that Linux gives a process, as a host's number may be in a container."""


def driver_is_present() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def refuse(code: int) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        raise pynvml.NVMLError(code)

    return call


class Card:
    """What the functions of `pynvml` answer in these tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.compute: dict[int, int | None] = {}
        self.graphics: dict[int, int | None] = {}
        self.shutdowns = 0
        memory = pynvml.c_nvmlMemory_v2_t()
        memory.total, memory.used, memory.reserved = 85_520_809_984, 5_000_000_000, 600_000_000
        rates = pynvml.c_nvmlUtilization_t()
        rates.gpu, rates.memory = 97, 40
        answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlSystemGetDriverVersion": "570.124.06",
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetUUID": "GPU-8f6b",
            "nvmlDeviceGetCudaComputeCapability": (9, 0),
            "nvmlDeviceGetEnforcedPowerLimit": 700_000,
            "nvmlDeviceGetUtilizationRates": rates,
            "nvmlDeviceGetMemoryInfo": memory,
            "nvmlDeviceGetPowerUsage": 350_500,
            "nvmlDeviceGetTotalEnergyConsumption": 123_456_789,
            "nvmlDeviceGetTemperatureV": 61,
            "nvmlDeviceGetTemperature": 62,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x44,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x4,
        }
        for name, answer in answers.items():
            self.answer(name, lambda *_, value=answer: value)
        self.answer("nvmlShutdown", self._shutdown)
        self.answer("nvmlDeviceGetHandleByIndex", self._handle)
        for version in ("v2", "v3"):
            for kind in ("Compute", "Graphics"):
                held = self.compute if kind == "Compute" else self.graphics
                self.answer(
                    f"nvmlDeviceGet{kind}RunningProcesses_{version}",
                    lambda _, held=held: [
                        SimpleNamespace(pid=pid, usedGpuMemory=memory)
                        for pid, memory in held.items()
                    ],
                )
        self.refuse("nvmlDeviceGetProcessUtilization", pynvml.NVML_ERROR_NOT_FOUND)

    def answer(self, name: str, call: Callable[..., Any]) -> None:
        self._monkeypatch.setattr(pynvml, name, call)

    def refuse(self, name: str, code: int = NOT_SUPPORTED) -> None:
        self.answer(name, refuse(code))

    def _handle(self, index: int) -> int:
        if index != 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def _shutdown(self) -> None:
        self.shutdowns += 1


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(monkeypatch)


@pytest.mark.skipif(driver_is_present(), reason="needs a machine without NVIDIA's driver")
def test_without_a_driver_the_reason_is_told() -> None:
    with pytest.raises(DeviceUnavailable, match=r"driver .* NVML Shared Library Not Found"):
        NvmlDevice()
    assert open_device().util_source == "psutil"


@pytest.mark.gpu
@pytest.mark.skipif(not driver_is_present(), reason="needs NVIDIA's driver")
def test_a_real_card_tells_who_it_is() -> None:
    device = NvmlDevice()
    assert device.info().name.startswith("NVIDIA")
    assert device.sample().memory_bytes is not None
    device.close()


def test_pynvml_is_imported_only_when_a_gpu_is_opened() -> None:
    code = "import sys, tuner.doctor, tuner.devices.monitor; print('pynvml' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_a_card_says_what_it_is(card: Card) -> None:
    device = NvmlDevice()
    info = device.info()
    assert (info.kind, info.platform) == ("gpu", "cuda")
    assert info.name == "NVIDIA H100 80GB HBM3"
    assert (info.uuid, info.driver) == ("GPU-8f6b", "570.124.06")
    assert info.memory_bytes == 85_520_809_984
    assert info.compute_capability == (9, 0)
    assert info.power_limit_w == 700.0
    assert isinstance(device, SharedDevice)


def test_readings_come_in_our_units(card: Card) -> None:
    device = NvmlDevice()
    sample = device.sample()
    assert sample.util == 97.0
    assert sample.memory_bytes == 5_000_000_000
    assert sample.power_w == 350.5
    assert sample.energy_j == pytest.approx(123_456.789)
    assert sample.temperature_c == 61.0
    # Power cap 0x4 is no fault; hardware thermal slowdown 0x40 is.
    assert sample.throttle_reasons == 0x44
    assert sample.throttle_reasons & SLOWDOWN_REASONS == 0x40
    assert (sample.sm_util, sample.dram_util) == (None, None)
    assert sample.cpu_s is not None
    assert device.unavailable == {}


@pytest.mark.parametrize(
    "code",
    [
        NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_UNKNOWN,
    ],
)
@pytest.mark.parametrize("reading", sorted(set(REFUSABLE.values())))
def test_each_reading_may_be_refused_alone(card: Card, reading: str, code: int) -> None:
    full = NvmlDevice().sample()
    for name in (name for name, what in REFUSABLE.items() if what == reading):
        card.refuse(name, code)
    device = NvmlDevice()
    sample = device.sample()

    field = {
        "utilisation": "util",
        "memory": "memory_bytes",
        "energy": "energy_j",
        "power": "power_w",
        "temperature": "temperature_c",
        "throttling": "throttle_reasons",
    }
    for what, name in field.items():
        expected = None if what == reading else getattr(full, name)
        assert getattr(sample, name) == expected
    assert list(device.unavailable) == [reading]


def test_older_drivers_answer_the_older_calls(card: Card) -> None:
    for name in ("TemperatureV", "CurrentClocksEventReasons", "ComputeRunningProcesses_v3"):
        card.refuse(f"nvmlDeviceGet{name}", pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    card.compute[HIDDEN_PID] = 1
    device = NvmlDevice()
    sample = device.sample()
    assert sample.temperature_c == 62.0
    assert sample.throttle_reasons == 0x4
    assert device.users() is not None
    assert device.unavailable == {}


def test_facts_of_the_card_may_be_refused(card: Card) -> None:
    for name in ("Name", "UUID", "CudaComputeCapability", "EnforcedPowerLimit", "MemoryInfo"):
        card.refuse(f"nvmlDeviceGet{name}")
    card.refuse("nvmlSystemGetDriverVersion", pynvml.NVML_ERROR_UNKNOWN)
    info = NvmlDevice().info()
    assert info.name == "NVIDIA GPU 0"
    assert (info.uuid, info.driver, info.memory_bytes) == (None, None, None)
    assert (info.compute_capability, info.power_limit_w) == (None, None)


def test_a_lost_card_is_an_error_not_a_missing_reading(card: Card) -> None:
    device = NvmlDevice()
    card.refuse("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_GPU_IS_LOST)
    with pytest.raises(DeviceUnavailable, match="GPU 0 must answer, but got GPU is lost"):
        device.sample()


def test_a_card_that_is_not_there(card: Card) -> None:
    with pytest.raises(DeviceUnavailable, match="one of 1 GPUs counted from 0, but got 3"):
        NvmlDevice(3)
    assert card.shutdowns == 1


def test_closing_twice_shuts_down_once(card: Card) -> None:
    device = NvmlDevice()
    device.close()
    device.close()
    assert card.shutdowns == 1


def test_an_unwatched_process_belongs_to_others(card: Card) -> None:
    card.compute[HIDDEN_PID] = 2_000_000_000
    device = NvmlDevice()
    card.compute[os.getpid()] = 1_000_000_000
    device.watch(os.getpid())
    users = device.users()
    assert users is not None
    assert [(user.pid, user.is_ours) for user in users] == [
        (os.getpid(), True),
        (HIDDEN_PID, False),
    ]
    assert users[0].name is not None
    assert users[1].name is None
    # 5 GB are in use, 1 GB of it ours.
    assert device.memory_of_others_bytes() == 4_000_000_000


def test_a_hidden_process_that_came_after_the_start_is_ours(card: Card) -> None:
    card.compute[HIDDEN_PID] = 2_000_000_000
    device = NvmlDevice()
    device.watch(os.getpid())
    card.compute[OTHER_HIDDEN_PID] = 1_000_000_000
    users = device.users()
    assert users is not None
    assert [user.is_ours for user in users] == [False, True]


def test_two_hidden_processes_cannot_be_told_apart(card: Card) -> None:
    device = NvmlDevice()
    device.watch(os.getpid())
    card.compute |= {HIDDEN_PID: 1, OTHER_HIDDEN_PID: 1}
    users = device.users()
    assert users is not None
    assert [user.is_ours for user in users] == [None, None]
    assert device.memory_of_others_bytes() is None


def test_a_process_that_only_holds_memory_computes_nothing(card: Card) -> None:
    card.compute[HIDDEN_PID] = None
    card.graphics[OTHER_HIDDEN_PID] = 300
    asked = []

    def utilisation(_: int, since: int) -> list[SimpleNamespace]:
        asked.append(since)
        return [
            SimpleNamespace(pid=HIDDEN_PID, smUtil=smutil, timeStamp=stamp)
            for smutil, stamp in ((30, 1000), (70, 3000), (10, 2000))
        ]

    device = NvmlDevice()
    card.answer("nvmlDeviceGetProcessUtilization", utilisation)
    users = device.users()
    device.users()
    assert users is not None
    assert [(u.pid, u.sm_util, u.memory_bytes) for u in users] == [
        (HIDDEN_PID, 70.0, None),
        (OTHER_HIDDEN_PID, 0.0, 300),
    ]
    assert asked == [0, 3000]


def test_a_driver_that_keeps_its_processes_to_itself(card: Card) -> None:
    card.compute[HIDDEN_PID] = 1
    card.refuse("nvmlDeviceGetProcessUtilization")
    device = NvmlDevice()
    users = device.users()
    assert users is not None
    assert users[0].sm_util is None

    for version in ("v2", "v3"):
        card.refuse(f"nvmlDeviceGetComputeRunningProcesses_{version}")
    assert device.users() is None
    assert device.memory_of_others_bytes() is None
