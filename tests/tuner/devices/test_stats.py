from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records import DeviceSample
from tests.tuner.devices.samples import CPU, GPU, seconds
from tuner.devices.stats import DeviceStats, Window, reduce_window


def reduce_cpu(samples: list[DeviceSample], start: float, end: float) -> DeviceStats:
    return reduce_window(samples, Window(start, end), info=CPU, util_source="psutil")


def reduce_gpu(samples: list[DeviceSample], start: float, end: float) -> DeviceStats:
    return reduce_window(samples, Window(start, end), info=GPU, util_source="nvml")


def test_cpu_utilisation_is_the_total_interpolated_at_the_edges() -> None:
    # CPU seconds at t = 0..5: idle for two seconds, then 3 a second.
    totals = [0, 0, 0, 3, 6, 9]
    samples = [DeviceSample(t=float(t), cpu_s=float(c)) for t, c in enumerate(totals)]

    # From 1.5 to 4.5: 0.5 s idle, 2.5 s at 3 a second = 7.5 CPU seconds in 3 s on 4 cores.
    stats = reduce_cpu(samples, 1.5, 4.5)
    assert stats.util == pytest.approx(100 * 7.5 / 3 / 4)
    assert stats.util_reason is None
    assert stats.num_samples == 3


def test_gpu_utilisation_is_the_mean_of_the_samples_inside() -> None:
    readings = [0, 90, 80, 100, 0]
    samples = [DeviceSample(t=float(t), util=float(u)) for t, u in enumerate(readings)]
    stats = reduce_gpu(samples, 0.5, 3.5)
    assert stats.util == pytest.approx((90 + 80 + 100) / 3)
    assert (stats.util_source, stats.num_samples) == ("nvml", 3)


def test_a_gpu_does_not_take_the_cpu_time_of_its_process_for_its_own() -> None:
    samples = [DeviceSample(t=float(t), util=50.0, cpu_s=float(t)) for t in range(6)]
    assert reduce_gpu(samples, 0, 5).util == pytest.approx(50.0)


def test_energy_is_the_difference_at_the_edges_and_power_its_rate() -> None:
    samples = [
        DeviceSample(t=float(t), util=50.0, energy_j=300.0 * t, power_w=1.0) for t in range(6)
    ]
    stats = reduce_gpu(samples, 0.5, 4.0)
    assert stats.energy_j == pytest.approx(300 * 3.5)
    assert stats.power_w == pytest.approx(300.0)


def test_without_an_energy_counter_power_is_a_mean_and_energy_unknown() -> None:
    samples = [DeviceSample(t=float(t), power_w=100.0 + t) for t in range(5)]
    stats = reduce_gpu(samples, 1, 3)
    assert stats.power_w == pytest.approx(102.0)
    assert stats.energy_j is None


def test_a_counter_that_fell_back_leaves_that_interval_out() -> None:
    # 10 J a second; between t = 4 and 5 the counter began anew.
    totals = [0, 10, 20, 30, 40, 0, 10, 20, 30]
    samples = [DeviceSample(t=float(t), energy_j=float(e)) for t, e in enumerate(totals)]
    stats = reduce_gpu(samples, 0, 8)
    assert stats.energy_j == pytest.approx(80.0)
    assert stats.power_w == pytest.approx(10.0)


def test_the_rest_of_the_fields_are_cut_to_the_window() -> None:
    samples = [
        DeviceSample(
            t=float(t),
            memory_bytes=1000 - t,
            temperature_c=60.0 + t,
            gpu_util=90.0 + t,
            sm_clock_mhz=1000.0 * t,
            sm_util=10.0 * t,
            sm_occupancy=4.0 * t,
            tensor_util=2.0 * t,
            dram_util=5.0 * t,
            other_device_percent=t,
            throttle_reasons=1 << t,
        )
        for t in range(6)
    ]
    stats = reduce_gpu(samples, 1, 3)
    assert stats.peak_memory_bytes == 999
    assert stats.avg_temperature == pytest.approx(62.0)
    assert stats.gpu_util == pytest.approx(92.0)
    assert stats.sm_clock_mhz == pytest.approx(2000.0)
    # These describe the second before them: of 1 to 3, the samples at 2 and 3 tell.
    assert stats.sm_util == pytest.approx((20 + 30) / 2)
    assert stats.sm_occupancy == pytest.approx((8 + 12) / 2)
    assert stats.tensor_util == pytest.approx((4 + 6) / 2)
    assert stats.dram_util == pytest.approx((10 + 15) / 2)
    assert stats.other_device_percent == pytest.approx((2 + 3) / 2)
    assert stats.throttle_reasons == 0b1110


def test_host_load_is_weighted_by_the_time_it_describes() -> None:
    # 10 % from 0 to 1, 40 % from 1 to 3. The window 0.5 to 3 holds 0.5 s of the one, 2 s of the
    # other: (0.5·10 + 2·40) / 2.5 = 34.
    samples = [
        DeviceSample(t=0.0),
        DeviceSample(t=1.0, other_cpu_percent=10.0, steal_percent=0.0),
        DeviceSample(t=3.0, other_cpu_percent=40.0, steal_percent=5.0),
    ]
    stats = reduce_cpu(samples, 0.5, 3.0)
    assert stats.other_cpu_percent == pytest.approx(34.0)
    assert stats.steal_percent == pytest.approx(4.0)


def test_under_gpm_utilisation_is_weighted_by_the_time_it_describes() -> None:
    # 90 % from 0 to 1, unknown to 1.1 (too soon after), 30 % to 2, 60 % to 4. The window 0.5 to 3
    # holds 0.5 s, 0.9 s and 1 s of them: (0.5·90 + 0.9·30 + 60) / 2.4 = 55.
    samples = [
        DeviceSample(t=0.0),
        DeviceSample(t=1.0, util=90.0),
        DeviceSample(t=1.1),
        DeviceSample(t=2.0, util=30.0),
        DeviceSample(t=2.5, util=60.0),
        DeviceSample(t=4.0, util=60.0),
    ]
    stats = reduce_window(samples, Window(0.5, 3.0), info=GPU, util_source="gpm")
    assert stats.util == pytest.approx(55.0)
    # 0.1 of 2.5 s is unknown; of a window where 0.1 of 0.3 s is, nothing is said.
    stats = reduce_window(samples, Window(0.95, 1.25), info=GPU, util_source="gpm")
    assert (stats.util, stats.sm_util) == (None, None)


def test_figures_of_a_small_part_do_not_stand_for_the_window() -> None:
    samples = [
        DeviceSample(t=float(t), gpu_util=50.0, sm_util=50.0, dram_util=5.0) for t in range(4)
    ]
    stats = reduce_gpu([*samples, DeviceSample(t=10.0)], 0, 10)
    assert (stats.gpu_util, stats.sm_util, stats.dram_util) == (None, None, None)


def test_why_there_can_be_no_utilisation_is_told() -> None:
    info = replace(GPU, no_util_reason="GPM must answer, but got Not Supported")
    samples = [DeviceSample(t=float(t), gpu_util=50.0) for t in range(6)]
    stats = reduce_window(samples, Window(0, 5), info=info, util_source="gpm")
    assert (stats.util, stats.util_reason) == (None, info.no_util_reason)
    assert (stats.util_source, stats.gpu_util) == ("gpm", 50.0)


def test_too_few_samples_say_so() -> None:
    stats = reduce_cpu(seconds(10, cpu_s=1.0), 2.5, 4.4)
    assert stats.util is None
    assert stats.num_samples == 2
    assert stats.util_reason == (
        "utilisation must rest on at least 3 samples, but got 2 in 1.90 s; "
        "measure longer or sample more often"
    )


def test_an_unmeasured_field_is_none_never_zero() -> None:
    stats = reduce_gpu([DeviceSample(t=float(t)) for t in range(6)], 0, 5)
    assert stats == DeviceStats(
        util=None,
        util_reason="the device reports no utilisation",
        util_source="nvml",
        num_samples=6,
    )


def test_a_true_zero_stays_zero() -> None:
    samples = [DeviceSample(t=float(t), util=0.0, throttle_reasons=0) for t in range(4)]
    stats = reduce_gpu(samples, 0, 3)
    assert (stats.util, stats.throttle_reasons) == (0.0, 0)


def test_a_window_that_outlasts_the_samples_is_not_judged_by_its_beginning() -> None:
    stats = reduce_window(
        seconds(6, cpu_s=1.0), Window(0, 20), info=CPU, util_source="psutil", failure="it broke"
    )
    assert stats.util is None
    assert stats.util_reason is not None
    assert stats.util_reason.endswith("(it broke)")


def test_a_process_that_vanished_leaves_the_whole_window_unmeasured() -> None:
    alive = [DeviceSample(t=float(t), cpu_s=float(t), util=25.0) for t in range(4)]
    gone = [DeviceSample(t=float(t)) for t in range(4, 11)]
    assert reduce_cpu(alive + gone, 0, 10).util is None
    assert reduce_cpu(alive + gone, 0, 3).util == pytest.approx(25.0)


def test_no_samples_at_all() -> None:
    assert reduce_cpu([], 0, 1).num_samples == 0


@given(
    steps=st.lists(st.floats(0.0, 1.0), min_size=4, max_size=20),
    cut=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_the_totals_of_two_adjacent_windows_add_up(
    steps: list[float], cut: tuple[float, float]
) -> None:
    totals = [sum(steps[:i]) for i in range(len(steps) + 1)]
    samples = [DeviceSample(t=float(t), energy_j=e) for t, e in enumerate(totals)]
    start, middle = (share * len(steps) for share in sorted(cut))
    end = float(len(steps))
    parts = [reduce_gpu(samples, *window).energy_j for window in ((start, middle), (middle, end))]
    whole = reduce_gpu(samples, start, end).energy_j
    # An empty window has no energy to tell.
    assert sum(part or 0.0 for part in parts) == pytest.approx(whole or 0.0, abs=1e-9)


@given(
    rates=st.lists(st.floats(0.0, 100.0), min_size=2, max_size=20),
    cut=st.floats(0.0, 1.0),
)
def test_a_mean_of_rates_lies_between_those_of_two_adjacent_windows(
    rates: list[float], cut: float
) -> None:
    samples = [DeviceSample(t=float(t), other_device_percent=r) for t, r in enumerate(rates)]
    end = float(len(rates) - 1)
    whole = reduce_gpu(samples, 0.0, end).other_device_percent
    parts = [
        reduce_gpu(samples, *window).other_device_percent
        for window in ((0.0, cut * end), (cut * end, end))
    ]
    known = [part for part in parts if part is not None]
    assert (whole is None) == (known == [])
    if whole is not None:
        assert min(known) - 1e-9 <= whole <= max(known) + 1e-9


def test_one_reading_does_not_contaminate_a_whole_window() -> None:
    busy = [DeviceSample(t=0.0), DeviceSample(t=0.25, steal_percent=100.0, other_cpu_percent=100.0)]
    unknown = [DeviceSample(t=float(t)) for t in range(1, 11)]
    stats = reduce_gpu([*busy, *unknown], 0, 10)
    assert (stats.steal_percent, stats.other_cpu_percent) == (None, None)


def test_an_energy_counter_that_jumps_up_is_not_believed() -> None:
    # 300 J a second, but 10⁹ J within the fifth; the rest stands for it: 10 s · 300 W.
    totals = [300.0 * t + (1e9 if t >= 5 else 0.0) for t in range(11)]
    samples = [DeviceSample(t=float(t), energy_j=total) for t, total in enumerate(totals)]
    info = replace(GPU, power_limit_w=700.0)
    stats = reduce_window(samples, Window(0, 10), info=info, util_source="nvml")
    assert stats.power_w == pytest.approx(300.0)
    assert stats.energy_j == pytest.approx(3000.0)
