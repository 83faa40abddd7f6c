"""The description of this machine's GPU, from a stub of CUDA's driver in a process of its own."""

import pytest

from tests.tuner.devices.driver import Driver
from tuner.errors import UsageError
from tuner.targets.here import describe_here
from tuner.targets.table import find

# By `CUdevice_attribute`, as an H100 SXM answers: clock and memory clock in kHz, bus in bits.
H100 = {1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2147483647, 6: 65535, 7: 65535, 8: 49152, 10: 32,
        12: 65536, 13: 1980000, 16: 132, 36: 2619000, 37: 5120, 38: 52428800, 39: 2048, 75: 9,
        76: 0, 81: 233472, 82: 65536, 97: 232448}  # fmt: skip


def fields(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


def test_an_h100_describes_itself_as_the_table_does(driver: Driver) -> None:
    attributes = {f"attribute{number}": value for number, value in H100.items()}
    driver.set_card(0, memory_total=84_942_979_072, **attributes)
    assert fields(describe_here()) == fields(find("H100 SXM 80GB").target().description)


def test_an_architecture_that_is_not_in_the_table(driver: Driver) -> None:
    driver.set_card(0, attribute75=13, attribute76=1, attribute16=200)
    text = describe_here()
    assert "cuda_compute_capability { major: 13 minor: 1 }" in text
    assert "fpus_per_core: 128" in text
    assert "core_count: 200" in text


def test_a_driver_that_refuses_is_told_in_one_line(driver: Driver) -> None:
    driver.fail("cuDeviceGetAttribute", code=802)
    with pytest.raises(UsageError, match=r"--export must run where there is a GPU: .*\(802\)"):
        describe_here()


def test_without_a_gpu(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    with pytest.raises(UsageError, match="--export must run where there is a GPU"):
        describe_here()
