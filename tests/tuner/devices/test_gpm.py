"""GPM through the real binding: live-probed, by intervals, one metric at a time."""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import pynvml
import pytest

from tests.tuner.devices.conftest import OpenNvml
from tests.tuner.devices.driver import MIG_UUIDS, Driver
from tuner.devices.base import DeviceUnavailable
from tuner.devices.cuda import CudaDevice
from tuner.devices.gpm import MIN_INTERVAL_S, GpmMetrics, GpmReader
from tuner.devices.nvml_handle import NvmlHandle
from tuner.devices.stats import Window, reduce_window

FIELDS = {"sm_util": 2, "sm_occupancy": 3, "tensor_util": 5, "dram_util": 10}
NAMES = ("sm activity", "sm occupancy", "tensor activity", "dram bandwidth")


@pytest.fixture
def hopper(driver: Driver) -> Driver:
    """A card that answers GPM: 40 % of its multiprocessors busy, 20 % of its warps resident."""
    driver.set_card(gpm=1, gpm2=40, gpm3=20, gpm5=0, gpm10=55.5)
    return driver


@pytest.fixture
def handle(hopper: Driver) -> Iterator[NvmlHandle]:
    with closing(NvmlHandle(0)) as opened:
        yield opened


def wait() -> None:
    time.sleep(MIN_INTERVAL_S + 0.005)


def test_figures_are_those_between_two_readings(hopper: Driver, handle: NvmlHandle) -> None:
    with closing(GpmReader(handle)) as gpm:
        hopper.set_card(gpm2=60, gpm10=65.5)
        wait()
        # From 40 % at the last sample of the probe to 60 % now; DRAM from 55.5 % to 65.5 %.
        assert gpm.read() == GpmMetrics(
            sm_util=50.0, sm_occupancy=20.0, tensor_util=0.0, dram_util=60.5
        )
        hopper.set_card(gpm2=80)
        wait()
        # The sample that ended the one interval begins the next: (60 + 80) / 2.
        assert gpm.read().sm_util == 70.0


def test_a_reading_too_soon_is_absent_and_loses_nothing(hopper: Driver, handle: NvmlHandle) -> None:
    with closing(GpmReader(handle)) as gpm:
        hopper.set_card(gpm2=60)
        assert gpm.read() == GpmMetrics()
        wait()
        assert gpm.read().sm_util == 50.0


def test_a_restart_forgets_what_was_before(hopper: Driver, handle: NvmlHandle) -> None:
    with closing(GpmReader(handle)) as gpm:
        hopper.set_card(gpm2=60)
        gpm.restart()
        wait()
        assert gpm.read().sm_util == 60.0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gpu0.gpm": 0}, "must be supported"),
        ({"fail.gpm2": pynvml.NVML_ERROR_NOT_SUPPORTED}, "got Not Supported"),
        ({"gpu0.gpm2": "nan"}, "nan is no percentage"),
        ({"fail.nvmlGpmSampleGet": pynvml.NVML_ERROR_NO_PERMISSION}, "Insufficient Permissions"),
        ({"fail.nvmlGpmSampleAlloc": pynvml.NVML_ERROR_MEMORY}, "Insufficient Memory"),
        ({"fail.nvmlGpmMetricsGet": pynvml.NVML_ERROR_UNKNOWN}, "Unknown Error"),
        ({"fail.nvmlGpmQueryDeviceSupport": 13}, "Function Not Found"),
    ],
)
def test_a_card_that_stays_silent_is_measured_by_nvml(
    hopper: Driver, open_nvml: OpenNvml, settings: dict[str, object], reason: str
) -> None:
    hopper.set(settings)
    device = open_nvml()
    assert (device.util_source, device.sample().util) == ("nvml", 97.0)
    assert set(NAMES) <= device.unavailable.keys()
    assert reason in device.unavailable["sm activity"]
    assert device.info().no_util_reason is None


def test_a_card_that_answers_is_measured_by_gpm(hopper: Driver, open_nvml: OpenNvml) -> None:
    device = open_nvml()
    device.watch(None)
    wait()
    sample = device.sample()
    assert device.util_source == "gpm"
    assert (sample.util, sample.sm_util, sample.gpu_util) == (40.0, 40.0, 97.0)
    assert (sample.sm_occupancy, sample.tensor_util, sample.dram_util) == (20.0, 0.0, 55.5)
    assert device.unavailable.keys().isdisjoint(NAMES)
    # Nothing stale is repeated where the next sample follows at once.
    again = device.sample()
    assert (again.util, again.sm_util, again.gpu_util) == (None, None, 97.0)


def test_a_study_by_nvml_stays_with_it_and_still_sees_gpm(
    hopper: Driver, open_nvml: OpenNvml
) -> None:
    device = open_nvml(util_source="nvml")
    device.watch(None)
    wait()
    sample = device.sample()
    assert device.util_source == "nvml"
    assert (sample.util, sample.sm_util) == (97.0, 40.0)


@pytest.mark.parametrize(
    ("field", "refusal"),
    [*((field, "code") for field in FIELDS), *(("dram_util", v) for v in ("101", "-1", "inf"))],
)
def test_each_metric_may_fail_alone(
    hopper: Driver, handle: NvmlHandle, field: str, refusal: str
) -> None:
    metric = FIELDS[field]
    with closing(GpmReader(handle)) as gpm:
        if refusal == "code":
            hopper.fail(f"gpm{metric}", code=pynvml.NVML_ERROR_NOT_SUPPORTED)
        else:
            hopper.set({f"gpu0.gpm{metric}": refusal})
            gpm.restart()
        wait()
        read = gpm.read()
        expected = {"sm_util": 40.0, "sm_occupancy": 20.0, "tensor_util": 0.0, "dram_util": 55.5}
        assert read == GpmMetrics(**(expected | {field: None}))
        name = NAMES[list(FIELDS).index(field)]
        assert handle.unavailable.keys() & set(NAMES) == {name}


def test_samples_refused_for_a_while_are_absent_for_that_while(
    hopper: Driver, handle: NvmlHandle
) -> None:
    with closing(GpmReader(handle)) as gpm:
        for function in ("nvmlGpmSampleGet", "nvmlGpmMetricsGet"):
            hopper.fail(function, code=pynvml.NVML_ERROR_UNKNOWN)
            wait()
            assert gpm.read() == GpmMetrics()
            assert handle.unavailable["dram bandwidth"] == "Unknown Error"
            hopper.fail(function, code=0)
            wait()
            assert gpm.read().sm_util == 40.0
            assert "dram bandwidth" not in handle.unavailable


def test_a_lost_card_ends_it(hopper: Driver, handle: NvmlHandle) -> None:
    with closing(GpmReader(handle)) as gpm:
        hopper.set_card(lost=1)
        wait()
        with pytest.raises(DeviceUnavailable, match="GPU is lost"):
            gpm.read()
    # The samples are freed none the less, which the driver fixture checks.


def test_a_mig_instance_has_figures_of_its_own(hopper: Driver, open_nvml: OpenNvml) -> None:
    hopper.divide()
    hopper.set_card(0, 0, gpm2=10)
    hopper.set_card(0, 1, gpm2=90, gpm3=30)
    second = CudaDevice(
        ordinal=0, uuid=f"MIG-{MIG_UUIDS[1]}", pci_bus_id="0000:65:00.0", name="instance"
    )
    device = open_nvml(second)
    device.watch(None)
    wait()
    sample = device.sample()
    assert (device.util_source, device.info().no_util_reason) == ("gpm", None)
    assert (sample.util, sample.sm_occupancy, sample.gpu_util) == (90.0, 30.0, None)


def test_a_window_s_mean_weighs_each_reading_by_its_time(
    hopper: Driver, open_nvml: OpenNvml
) -> None:
    device = open_nvml()
    device.watch(None)
    samples = [device.sample()]
    # Means of both ends: 40 to 60, 60 to 60, then 60 to 0.
    for rate, intervals in ((60, 1), (60, 2), (0, 1)):
        hopper.set_card(gpm2=rate)
        time.sleep(intervals * MIN_INTERVAL_S + 0.005)
        samples.append(device.sample())
    times = [sample.t for sample in samples]
    lengths = [after - before for before, after in pairwise(times)]
    assert [sample.util for sample in samples] == [None, 50.0, 60.0, 30.0]
    stats = reduce_window(
        samples, Window(times[0], times[-1]), info=device.info(), util_source="gpm"
    )
    expected = (50 * lengths[0] + 60 * lengths[1] + 30 * lengths[2]) / sum(lengths)
    assert stats.util == pytest.approx(expected)
    assert stats.sm_util == pytest.approx(expected)
    assert (stats.gpu_util, stats.sm_clock_mhz) == (97.0, 1755.0)
    # Half of the last interval counts half.
    cut = Window(times[0], times[-1] - lengths[2] / 2)
    stats = reduce_window(samples, cut, info=device.info(), util_source="gpm")
    expected = (50 * lengths[0] + 60 * lengths[1] + 30 * lengths[2] / 2) / (
        sum(lengths) - lengths[2] / 2
    )
    assert stats.sm_util == pytest.approx(expected)
