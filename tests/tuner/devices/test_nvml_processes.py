"""Whose the processes on a device are, and how much those of others compute."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.tuner.devices.conftest import OpenNvml
from tests.tuner.devices.driver import MIG_UUIDS, Driver
from tuner.devices import nvml_processes
from tuner.devices.base import DeviceUser
from tuner.devices.cuda import CudaDevice
from tuner.devices.nvml import NvmlDevice

HIDDEN, OTHER_HIDDEN, THIRD_HIDDEN = (2**22 + n for n in (1, 2, 3))
"""Larger than any number that Linux gives a process, as a host's number may be in a container."""
NOT_SUPPORTED = 3


@pytest.fixture(autouse=True)
def as_on_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Number processes here as the driver does, and let every sample look at them."""
    namespace = Path("/proc/self/ns/pid")
    if not namespace.exists():
        pytest.skip("needs Linux, whose processes have namespaces")
    monkeypatch.setattr(nvml_processes, "HOST_NAMESPACE", namespace.stat().st_ino)
    monkeypatch.setattr(nvml_processes, "REFRESH_S", 0.0)


@pytest.fixture
def child() -> Iterator[int]:
    """A process of ours, as a trial is."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


def hold(
    driver: Driver, *, compute: str | None = None, graphics: str | None = None, shares: str = ""
) -> None:
    """Set who holds memory, "pid:bytes,…", unless None, and who computes, "pid:percent:µs,…"."""
    held = {"compute": compute, "graphics": graphics}
    driver.set({f"gpu0.{key}": value for key, value in held.items() if value is not None})
    driver.set({"gpu0.shares": shares})


def users_of(device: NvmlDevice) -> tuple[DeviceUser, ...]:
    users = device.users()
    assert users is not None
    return users


def whose(device: NvmlDevice) -> dict[int, bool | None]:
    return {user.pid: user.is_ours for user in users_of(device)}


def other_percent(device: NvmlDevice) -> float | None:
    return device.sample().other_device_percent


def test_an_unwatched_process_belongs_to_others(driver: Driver, open_nvml: OpenNvml) -> None:
    hold(driver, compute=f"{HIDDEN}:2000000000")
    device = open_nvml()
    hold(driver, compute=f"{HIDDEN}:2000000000,{os.getpid()}:1000000000")
    device.watch(os.getpid())
    mine, other = users_of(device)
    assert (mine.pid, mine.is_ours, mine.memory_bytes) == (os.getpid(), True, 1_000_000_000)
    assert (other.pid, other.is_ours, other.name) == (HIDDEN, False, None)
    assert mine.name == psutil.Process().name()
    # 5 GB are in use, 1 GB of it ours.
    assert device.memory_of_others_bytes() == 4_000_000_000


def test_a_process_of_this_machine_is_never_taken_for_ours(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    device.watch(child)
    # It came after ours was announced, but it can be seen here to be somebody else.
    hold(driver, compute=f"{os.getpid()}:1,{HIDDEN}:1")
    assert whose(device) == {os.getpid(): False, HIDDEN: True}


def test_in_a_container_numbers_that_match_mean_nothing(
    driver: Driver, open_nvml: OpenNvml, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml_processes, "HOST_NAMESPACE", 0)
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{os.getpid()}:1,{HIDDEN}:1")
    assert whose(device) == {os.getpid(): None, HIDDEN: None}
    hold(driver, compute=f"{os.getpid()}:1")
    assert whose(device) == {os.getpid(): True}
    hold(driver, compute=f"{child}:1,{HIDDEN}:1")
    assert whose(device) == {child: True, HIDDEN: False}


def test_a_hidden_process_that_came_after_the_start_is_ours(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    hold(driver, compute=f"{HIDDEN}:2000000000")
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{HIDDEN}:2000000000,{OTHER_HIDDEN}:1000000000")
    assert whose(device) == {HIDDEN: False, OTHER_HIDDEN: True}
    assert device.memory_of_others_bytes() == 4_000_000_000


def test_two_hidden_processes_cannot_be_told_apart(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{HIDDEN}:1,{OTHER_HIDDEN}:1", shares=f"{HIDDEN}:90:1000")
    assert whose(device) == {HIDDEN: None, OTHER_HIDDEN: None}
    assert device.memory_of_others_bytes() is None
    assert other_percent(device) is None


def test_who_was_beside_one_trial_is_not_the_next(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    device.watch(child)
    # A stranger joins the first trial, and both are hidden.
    hold(driver, compute=f"{HIDDEN}:1,{OTHER_HIDDEN}:1")
    assert whose(device) == {HIDDEN: None, OTHER_HIDDEN: None}
    # In the second trial the stranger is still there, and ours has another number.
    device.watch(os.getpid())
    hold(driver, compute=f"{OTHER_HIDDEN}:1,{THIRD_HIDDEN}:1")
    assert whose(device) == {OTHER_HIDDEN: False, THIRD_HIDDEN: True}


def test_a_driver_may_number_all_our_trials_as_one(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    hold(driver, compute=f"{HIDDEN}:1")
    for pid in (child, os.getpid()):
        device.watch(pid)
        assert whose(device) == {HIDDEN: True}
    # Then a newcomer is not taken for ours because ours is known from before.
    device.watch(child)
    hold(driver, compute=f"{HIDDEN}:1,{OTHER_HIDDEN}:1")
    assert whose(device) == {HIDDEN: None, OTHER_HIDDEN: None}


def test_when_ours_has_ended_what_it_did_stays_ours_and_what_comes_is_not(
    driver: Driver, open_nvml: OpenNvml
) -> None:
    device = open_nvml()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        device.watch(process.pid)
        hold(driver, compute=f"{HIDDEN}:2000000000")
        assert whose(device) == {HIDDEN: True}
    # The driver lists it a little longer, and somebody else has come.
    hold(
        driver,
        compute=f"{HIDDEN}:2000000000,{OTHER_HIDDEN}:1000000000",
        shares=f"{HIDDEN}:90:1000",
    )
    assert whose(device) == {HIDDEN: True, OTHER_HIDDEN: False}
    hold(driver, compute=f"{OTHER_HIDDEN}:1000000000", shares=f"{HIDDEN}:90:2000")
    assert other_percent(device) == 0.0
    assert device.memory_of_others_bytes() == 5_000_000_000


def test_asking_for_memory_takes_no_figures_from_the_next_sample(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{child}:1,{HIDDEN}:1", shares=f"{HIDDEN}:25:1000")
    assert device.memory_of_others_bytes() == 4_999_999_999
    assert other_percent(device) == 25.0


def test_a_process_that_only_holds_memory_computes_nothing(
    driver: Driver, open_nvml: OpenNvml
) -> None:
    hold(driver, compute=f"{HIDDEN}", graphics=f"{OTHER_HIDDEN}:300")
    device = open_nvml()
    hold(driver, shares=f"{HIDDEN}:30:1000,{HIDDEN}:70:3000,{HIDDEN}:10:2000")
    assert [(u.pid, u.sm_util, u.memory_bytes) for u in users_of(device)] == [
        (HIDDEN, 70.0, None),
        (OTHER_HIDDEN, 0.0, 300),
    ]
    # What was told once is not told again.
    assert [user.sm_util for user in users_of(device)] == [0.0, 0.0]


def test_the_share_of_others_is_the_highest_that_is_not_ours(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    device.watch(child)
    hold(
        driver,
        compute=f"{child}:1,{HIDDEN}:1,{OTHER_HIDDEN}:1",
        shares=f"{child}:95:1000,{HIDDEN}:12:1000,{OTHER_HIDDEN}:31:1500",
    )
    assert other_percent(device) == 31.0
    # The others have stopped computing since; ours goes on.
    hold(driver, shares=f"{child}:95:2000")
    assert other_percent(device) == 0.0


def test_a_process_that_has_ended_has_computed(
    driver: Driver, open_nvml: OpenNvml, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{child}:1", shares=f"{HIDDEN}:44:1000")
    assert other_percent(device) == 44.0
    # In a container that may be our own under another number.
    monkeypatch.setattr(nvml_processes, "HOST_NAMESPACE", 0)
    hold(driver, shares=f"{HIDDEN}:44:2000")
    assert other_percent(device) is None


def test_what_was_computed_before_the_watch_belongs_to_no_window(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    hold(driver, compute=f"{child}:1,{HIDDEN}:1", shares=f"{HIDDEN}:80:1000")
    device = open_nvml()
    assert other_percent(device) == 0.0
    hold(driver, shares=f"{HIDDEN}:80:2000")
    device.watch(child)
    assert other_percent(device) == 0.0


def test_a_list_without_our_own_process_tells_nothing_of_others(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    assert other_percent(device) == 0.0
    device.watch(child)
    assert other_percent(device) is None


def test_processes_are_looked_at_once_a_second(
    driver: Driver, open_nvml: OpenNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml_processes, "REFRESH_S", 60.0)
    device = open_nvml()
    assert [other_percent(device) for _ in range(3)] == [0.0, None, None]


def test_a_driver_that_keeps_its_processes_to_itself(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    driver.fail("nvmlDeviceGetProcessUtilization", code=NOT_SUPPORTED)
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{child}:1")
    assert users_of(device)[0].sm_util is None
    assert device.unavailable["process utilisation"] == "Not Supported"
    # Ours alone is there, so nobody else computes; of another it cannot be told.
    assert other_percent(device) == 0.0
    hold(driver, compute=f"{child}:1,{HIDDEN}:1")
    assert other_percent(device) is None

    lists = (f"nvmlDeviceGetComputeRunningProcesses_{version}" for version in ("v2", "v3"))
    driver.fail(*lists, code=NOT_SUPPORTED)
    assert device.users() is None
    assert device.memory_of_others_bytes() is None
    assert other_percent(device) is None


def test_memory_that_is_not_told_is_not_guessed(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    device = open_nvml()
    device.watch(child)
    hold(driver, compute=f"{child}")
    assert device.memory_of_others_bytes() is None


def test_a_mig_instance_sees_its_own_processes(
    driver: Driver, open_nvml: OpenNvml, child: int
) -> None:
    driver.divide()
    driver.set_card(0, 0, compute=f"{HIDDEN}:500000000")
    driver.set_card(0, 1, compute=f"{child}:700000000")
    uuids = (f"MIG-{uuid}" for uuid in MIG_UUIDS)
    first, second = (
        open_nvml(CudaDevice(ordinal=0, uuid=uuid, pci_bus_id="0000:65:00.0", name="instance"))
        for uuid in uuids
    )
    for device in (first, second):
        device.watch(child)
    assert whose(second) == {child: True}
    assert second.memory_of_others_bytes() == 1_300_000_000
    assert other_percent(second) == 0.0
    # What a process of another instance does is told by no one, and is no business of ours.
    assert whose(first) == {HIDDEN: False}
    assert other_percent(first) is None
