"""From hand-made events to a measurement: every number derived by hand."""

from dataclasses import replace
from typing import Any

import pytest

from tuner.devices.stats import DeviceStats
from tuner.isolation import TrialRun
from tuner.measurement import (
    Evaluation,
    Measurement,
    Roof,
    Watch,
    last_quarter,
    measure,
    memory_error,
    seconds_to,
    window_of,
)
from tuner.outcome import Completed, Pruned
from tuner.peaks import Peaks
from tuner.protocol import Event
from tuner.space import HardwareConfig
from tuner.standstill import Standstill

CONFIG = HardwareConfig(10, 10, 2, 2)
PEAKS = Peaks(matmul_flops_per_s=1e9, copy_bytes_per_s=1e10, launch_s=1e-6)
STATS = DeviceStats(util=75.0, util_reason=None, util_source="psutil", num_samples=20)


def block(
    number: int, t: float, *, seconds: float, learning: bool = True, **metrics: float | None
) -> Event:
    """A block of 1000 env-steps that ended at t."""
    data = {
        "block": number,
        "env_steps": 1000 * (number + 1),
        "block_env_steps": 1000,
        "seconds": seconds,
        "metrics": {"mean_return": 10.0 * (number + 1), "entropy": 1.0, **metrics},
        "learning": learning,
        "threads": 12,
        "held_bytes": None,
        "resident_bytes": 300_000_000,
    }
    return Event("block", t, data)


READY = Event("ready", 98.0)
STARTED = Event("started", 101.0, {"platform": "cpu", "num_actions": 3})
COMPILED = Event(
    "compiled",
    105.0,
    {
        "lower_s": 1.0,
        "compile_s": 2.5,
        "cached": True,
        "predicted_bytes": 1_500_000_000,
        "limit_bytes": 8_000_000_000,
        "flops": 5e7,
        "bytes": 1e7,
        "kernels": 1000,
        "work_is_lower_bound": False,
    },
)
WARM = Event("warm", 106.0)
# Four learning blocks, 1000 env-steps each in 2, 1, 4 and 1 s, then one that only times.
BLOCKS = (
    block(0, 108.0, seconds=2.0),
    block(1, 109.0, seconds=1.0),
    block(2, 113.0, seconds=4.0),
    block(3, 114.0, seconds=1.0, entropy=0.5),
    block(4, 116.0, seconds=2.0, learning=False, entropy=0.1, mean_return=99.0),
)
MEASURED = Event(
    "measured",
    116.5,
    {
        "peak_bytes": 1_600_000_000,
        "memory_source": "resident growth",
        "recompiles": 0,
        "env_steps": 4000,
        "probe": {"matmul_flops_per_s": 4e10, "copy_bytes_per_s": 1e10},
    },
)
DONE = Event(
    "done",
    118.0,
    {"stopped": False, "params_changed": True, "mean_return": 42.0, "return_se": 1.5},
)
WHOLE = (READY, STARTED, COMPILED, WARM, *BLOCKS, MEASURED, DONE)
RUN = TrialRun(Completed(), WHOLE, requested=100.0, ended=119.0)


def measured(run: TrialRun = RUN, *, stats: Any = STATS) -> Measurement:
    watch = None if stats is None else Watch(stats, (), 0.2)
    return measure(
        run, config=CONFIG, trial=3, replicate=1, watch=watch, roof=Roof(PEAKS, "float32")
    )


def test_the_window_reaches_from_warm_to_the_last_block() -> None:
    assert window_of(RUN) == (106.0, 116.0)
    assert measured().record.window_s == 10.0


def test_sps_is_the_median_block() -> None:
    # 1000/2 = 500, 1000, 250, 1000, 500 -> sorted 250, 500, 500, 1000, 1000
    assert measured().record.sps == 500.0


def test_end_to_end_sps_counts_from_the_request_to_the_end_of_the_window() -> None:
    # 5000 env-steps in 116 − 100 = 16 s
    assert measured().record.end_to_end_sps == 5000 / 16


def test_phases_add_up_from_the_request_to_the_end() -> None:
    # started 101 − 100; compiled 105 − 101; warm 106 − 105; blocks to 116; the probe to 116.5;
    # ended 119 − 116.5
    phases = measured().record.phases
    assert phases == {
        "start": 1.0,
        "compile": 4.0,
        "warm_up": 1.0,
        "window": 10.0,
        "probe": 0.5,
        "evaluate": 2.5,
    }
    assert sum(phases.values()) == measured().record.duration == 19.0


def test_what_a_warm_spare_did_before_the_request_is_in_no_phase() -> None:
    early = replace(RUN, requested=102.0)
    # Started before it was asked: 0 s; compiled 105 − 102.
    assert measured(early).record.phases["start"] == 0.0
    assert measured(early).record.phases["compile"] == 3.0


def test_numbers_and_config_are_kept() -> None:
    record = measured().record
    assert (record.trial, record.replicate, record.status) == (3, 1, "success")
    assert (record.num_envs, record.num_steps) == (10, 10)
    assert (record.num_minibatches, record.num_epochs) == (2, 2)
    assert record.reason is None


def test_memory_is_in_decimal_gigabytes_with_its_source() -> None:
    record = measured().record
    assert (record.predicted_memory_gb, record.memory_limit_gb) == (1.5, 8.0)
    assert (record.peak_memory_gb, record.memory_source) == (1.6, "resident growth")


def test_compile_time_is_lowering_and_compiling_and_says_whether_it_was_cached() -> None:
    assert measured().record.compile_s == 3.5
    assert measured().record.compile_cached is True


def test_env_steps_are_those_of_the_budget() -> None:
    # The fifth block is not learning.
    assert measured().record.env_steps == 4000


def test_metrics_are_those_of_the_last_quarter_of_learning() -> None:
    # Four learning blocks: the last quarter is block 3 alone, and not the fifth.
    assert measured().record.entropy == 0.5
    assert last_quarter(measured().curve, "entropy") == [0.5]


def test_the_last_quarter_of_fewer_than_four_blocks_is_the_last() -> None:
    assert last_quarter(measured().curve[:3], "mean_return") == [30.0]
    assert last_quarter((), "mean_return") == []


def test_unknown_metrics_of_the_last_quarter_are_left_out() -> None:
    blocks = [block(n, 107.0 + n, seconds=1.0, entropy=None if n == 7 else n) for n in range(8)]
    run = replace(RUN, events=(STARTED, COMPILED, WARM, *blocks, MEASURED, DONE))
    # Blocks 6 and 7; 7 is unknown.
    assert measured(run).record.entropy == 6.0
    nothing = block(0, 107.0, seconds=1.0, entropy=None)
    run = replace(RUN, events=(STARTED, COMPILED, WARM, nothing, MEASURED, DONE))
    assert measured(run).record.entropy is None


def test_seconds_to_target_end_with_the_block_that_reached_it() -> None:
    curve = measured().curve
    # Returns 10, 20, 30, 40 after 2, 3, 7, 8 s of training.
    assert seconds_to(curve, 25.0) == 7.0
    assert seconds_to(curve, 10.0) == 2.0


def test_a_target_that_learning_never_reached_has_no_seconds() -> None:
    # 99 was returned by a block that only timed.
    assert seconds_to(measured().curve, 50.0) is None
    assert seconds_to(measured().curve, None) is None


def test_seconds_to_target_pass_over_blocks_without_episodes() -> None:
    blocks = (block(0, 107, seconds=1.5, mean_return=None), block(1, 109, seconds=2.0))
    run = replace(RUN, events=(WARM, *blocks))
    assert seconds_to(measured(run).curve, 20.0) == 3.5


def test_the_evaluation_is_the_mean_return() -> None:
    assert measured().evaluation == Evaluation(42.0, 1.5, params_changed=True)
    assert measured().record.mean_return == 42.0


def test_the_learning_return_is_the_mean_over_the_milestones_and_the_end() -> None:
    done = Event("done", WHOLE[-1].t, WHOLE[-1].data | {"earlier": [None, 10.0, 26.0]})
    found = measured(replace(RUN, events=(*WHOLE[:-1], done)))
    assert found.evaluation == Evaluation(
        42.0, 1.5, params_changed=True, earlier=(None, 10.0, 26.0)
    )
    assert found.record.mean_return == 42.0
    # No episode ended at the first milestone, which is no more than chance: (2 + 10 + 26 + 42) / 4
    assert found.evaluation.learning_return(2.0) == 20.0
    assert Evaluation(42.0, 1.5, params_changed=True).learning_return(2.0) == 42.0


@pytest.mark.parametrize(
    "data",
    [
        {"stopped": True},
        {"stopped": False, "params_changed": True, "mean_return": None, "return_se": None},
    ],
)
def test_nothing_is_evaluated_by_a_stopped_trial_or_one_without_episodes(
    data: dict[str, Any],
) -> None:
    run = replace(RUN, events=(*WHOLE[:-1], Event("done", 118.0, data)))
    assert measured(run).evaluation is None
    assert measured(run).record.mean_return is None


def test_a_trial_stopped_in_its_window_keeps_what_was_measured_so_far() -> None:
    run = TrialRun(Pruned("too weak"), (STARTED, COMPILED, WARM, *BLOCKS[:2]), 100.0, 110.0)
    record = measured(run).record
    assert (record.status, record.reason) == ("pruned", "too weak")
    assert record.sps == 750.0  # median of 500 and 1000
    assert record.window_s == 3.0  # 109 − 106
    assert (record.peak_memory_gb, record.env_steps, record.end_to_end_sps) == (None, None, None)


# The window is from 106 to the end of the last block.
@pytest.mark.parametrize(
    ("start", "end", "is_contaminated"),
    [(101.0, 105.0, False), (101.0, 107.0, True), (108.0, 108.0, True), (118.5, 119.0, False)],
)
def test_a_window_that_nobody_watched_is_contaminated(
    start: float, end: float, is_contaminated: bool
) -> None:
    run = replace(RUN, standstills=(Standstill(start, end, 30.0),))
    found = measured(run).record.contaminated
    assert (found is not None) == is_contaminated
    assert found is None or found.endswith("stopped, for 30 s")


def test_a_trial_that_ended_before_its_window_has_no_throughput() -> None:
    run = TrialRun(Completed(), (STARTED, COMPILED), 100.0, 110.0)
    found = measured(run, stats=None)
    assert window_of(run) is None
    assert found.throughput is None
    assert (found.record.sps, found.record.window_s, found.record.device_util) == (None,) * 3
    # Requested at 100, ended at 110: what is left after compiling came to nothing.
    assert found.record.phases == {"start": 1.0, "compile": 4.0, "lost": 5.0}


def test_the_throughput_variance_is_that_of_all_timed_blocks() -> None:
    throughput = measured().throughput
    assert throughput is not None
    assert throughput.num_batches == 5


def test_utilisation_names_its_source_and_is_no_gpu_figure_on_a_cpu() -> None:
    record = measured().record
    assert (record.device_util, record.util_source, record.gpu_util) == (75.0, "psutil", None)


def test_a_gpu_tells_more_than_its_utilisation() -> None:
    gpm = replace(
        STATS,
        util_source="gpm",
        gpu_util=99.0,
        sm_occupancy=20.0,
        avg_temperature=60.0,
        power_w=300.0,
        energy_j=3000.0,
        throttle_reasons=0x4,
    )
    record = measured(stats=gpm).record
    assert (record.device_util, record.gpu_util, record.sm_occupancy) == (75.0, 99.0, 20.0)
    assert (record.avg_temperature, record.power_w, record.energy_j) == (60.0, 300.0, 3000.0)
    # 3000 J over 5000 env-steps, the one that only timed included: 600,000 J a million.
    assert record.joules_per_msteps == 600_000.0
    # A power cap in software is recorded and disturbs nothing.
    assert (record.throttle_reasons, record.contaminated) == (0x4, None)


def test_what_bounds_a_trial_is_named() -> None:
    # 5000 env-steps are 50 updates of 100, in 2 + 1 + 4 + 1 + 2 = 10 s of blocks: 0.2 s each.
    record = measured().record
    assert (record.flops_per_s, record.bytes_per_s) == (2.5e8, 5e7)
    assert (record.compute_fraction, record.memory_fraction) == (0.25, 0.005)
    assert record.launch_fraction == pytest.approx(0.005)
    assert (record.host_fraction, record.bound) == (0.0, "compute")
    assert record.monitor_percent == 0.2


def test_energy_that_was_not_read_is_not_divided() -> None:
    assert measured().record.joules_per_msteps is None


def test_the_memory_error_is_predicted_over_measured() -> None:
    # 1.5 GB predicted, 1.6 GB measured.
    assert memory_error(measured().record) == pytest.approx(-0.0625)
    assert memory_error(replace(measured().record, peak_memory_gb=None)) is None


def test_what_a_block_held_and_the_probe_are_kept() -> None:
    found = measured()
    kept = {(p.threads, p.held_bytes, p.resident_bytes) for p in found.curve}
    assert kept == {(12, None, 300_000_000)}
    assert found.record.probe == {"matmul_flops_per_s": 4e10, "copy_bytes_per_s": 1e10}
    assert found.record.recompiles == 0


def test_why_utilisation_is_unknown_is_kept() -> None:
    silent = replace(STATS, util=None, util_reason="2 samples are too few")
    assert measured(stats=silent).record.util_reason == "2 samples are too few"


def test_a_quiet_machine_contaminates_nothing() -> None:
    quiet = replace(STATS, steal_percent=10.0, other_cpu_percent=10.0, throttle_reasons=0)
    assert measured().record.contaminated is None
    assert measured(stats=quiet).record.contaminated is None


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ({"steal_percent": 12.4}, "steal of 12 % of its cores"),
        ({"other_cpu_percent": 35.0}, "load of other processes of 35 % of its cores"),
        ({"other_device_percent": 8.0}, "another process computed on 8 % of the device"),
        # Software thermal slowdown, with an idle bit that is no fault.
        ({"throttle_reasons": 0x21}, "slowed itself down (reasons 0x21)"),
    ],
)
def test_foreign_load_and_slowdown_contaminate(noise: dict[str, Any], words: str) -> None:
    assert words in (measured(stats=replace(STATS, **noise)).record.contaminated or "")


def test_power_capping_is_no_contamination() -> None:
    # 0x4 is the software power cap, 0x1 idle: neither is a slowdown by heat or hardware.
    assert measured(stats=replace(STATS, throttle_reasons=0x5)).record.contaminated is None
