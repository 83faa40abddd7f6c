import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.throughput import (
    RunSpread,
    Throughput,
    block_variance,
    interval,
    is_wide,
    measure_throughput,
    run_spread,
    student_t,
)


def test_sps_is_the_median_block_so_one_pause_does_not_move_it() -> None:
    # 1000/1 = 1000, 1000/2 = 500, 1000/0.8 = 1250, 1000/1 = 1000, 1000/10 = 100
    # sorted 100, 500, 1000, 1000, 1250 -> 1000
    throughput = measure_throughput([(1000, 1), (1000, 2), (1000, 0.8), (1000, 1), (1000, 10)])
    assert throughput is not None
    assert throughput.sps == 1000.0
    assert throughput.num_batches == 5


def test_no_blocks_is_unknown_not_zero() -> None:
    assert measure_throughput([]) is None
    assert is_wide(None)


def test_one_block_has_a_speed_but_no_variance() -> None:
    throughput = measure_throughput([(100, 2)])
    assert throughput == Throughput(sps=50.0, block_variance=None, num_batches=1)
    assert is_wide(throughput)
    assert interval(throughput, RunSpread(0.01, 0.0, 3)) is None


@pytest.mark.parametrize("block", [(100, 0.0), (0, 1.0), (100, -1.0), (100, math.nan)])
def test_a_block_that_did_not_run_is_refused(block: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="a block must have env-steps and a duration, but got"):
        measure_throughput([(100, 1.0), block])


def test_block_variance_of_few_blocks_is_that_of_their_mean() -> None:
    # rates 90, 100, 110: s² = 100, /3 = 33.3…, /100² = 0.00333…
    assert block_variance([(90, 1), (100, 1), (110, 1)]) == pytest.approx(1 / 300)


def test_block_variance_groups_many_blocks_into_batches() -> None:
    # 21 blocks -> length 2, ten batches; the oldest block (1 env-step/s) fills no batch.
    # Pairs (90, 110) all have mean 100: no variance is left between batches.
    blocks = [(1.0, 1.0)] + [(90.0, 1.0), (110.0, 1.0)] * 10
    assert block_variance(blocks) == 0.0
    throughput = measure_throughput(blocks)
    assert throughput is not None
    assert throughput.num_batches == 10


@given(st.integers(min_value=10, max_value=500))
def test_there_are_10_to_19_batches_however_many_blocks(num_blocks: int) -> None:
    throughput = measure_throughput([(1.0, 1.0)] * num_blocks)
    assert throughput is not None
    assert 10 <= throughput.num_batches <= 19


def test_run_variance_takes_the_block_part_off_once() -> None:
    # SPS 90, 100, 110: s²/mean² = 100/10000 = 0.01; blocks account for (0.001+0.002+0.003)/3
    # = 0.002 of it, so fresh processes add 0.008.
    assert run_variance_of([None] * 3) == pytest.approx(0.01)
    assert run_variance_of([0.001, 0.002, 0.003]) == pytest.approx(0.008)


def test_run_variance_is_never_negative() -> None:
    assert run_variance_of([0.5, 0.5, 0.5]) == 0.0


def run_variance_of(block_variances: list[float | None]) -> float:
    """Return that of three processes at 90, 100 and 110 env-steps/s."""
    rates = zip((90, 100, 110), block_variances, strict=True)
    spread = run_spread([Throughput(sps, variance, 5) for sps, variance in rates])
    assert spread is not None
    return spread.run_variance


def test_run_variance_needs_three_replicates() -> None:
    assert run_spread([Throughput(90, 0.001, 5)] * 2) is None


def test_interval_by_hand() -> None:
    # Blocks b = 0.0001 with k = 11 batches; R = 3 replicates, B = 0.0004, w = 0.0001.
    # V = 0.0001 + (0.0004 − 0.0001) = 0.0004, √V = 0.02.
    # ν = 16e-8 / (1e-8/10 + 16e-8/2 + 1e-8/30) = 16 / (0.1 + 8 + 0.0333) = 1.967
    # held at min(10, 2) = 2 -> t = 4.3027; half-width = 4.3027 · √2 · 0.02 · 1000 = 121.70
    low, high = interval(Throughput(1000, 0.0001, 11), RunSpread(0.0004, 0.0001, 3)) or (0, 0)
    assert (low, high) == pytest.approx((1000 - 121.698, 1000 + 121.698), abs=0.001)


def test_noisy_blocks_bring_their_own_degrees_of_freedom() -> None:
    # b = 0.01 with k = 11; B = 0.0004, w = 0: V = 0.0104
    # ν = 1.0816e-4 / (1e-5 + 8e-8) = 10.73 -> t(10.73) = 2.208
    # half-width = 2.208 · √2 · 0.10198 · 1000 = 318.4
    low, high = interval(Throughput(1000, 0.01, 11), RunSpread(0.0004, 0.0, 3)) or (0, 0)
    assert (high - low) / 2 == pytest.approx(318.4, abs=0.3)


def test_an_interval_without_run_to_run_variance_is_absent() -> None:
    # Blocks of one process say nothing about a fresh one.
    assert interval(Throughput(1000, 0.0001, 11), None) is None


def test_interval_of_noiseless_blocks_is_a_point() -> None:
    assert interval(Throughput(1000, 0.0, 5), RunSpread(0.0, 0.0, 3)) == (1000.0, 1000.0)


def test_interval_never_goes_below_zero() -> None:
    low, _ = interval(Throughput(1000, 1.0, 2), RunSpread(0.0, 0.0, 3)) or (-1, -1)
    assert low == 0.0


def test_is_wide_compares_the_blocks_part_with_two_percent() -> None:
    # t(10) = 2.228: 2.228 · √v > 0.02 exactly when √v > 0.008976
    assert is_wide(Throughput(1000, 0.0090**2, 11))
    assert not is_wide(Throughput(1000, 0.0089**2, 11))


def test_more_blocks_narrow_it_whatever_the_machine_adds_from_run_to_run() -> None:
    generator = random.Random(0)

    def blocks(number: int) -> list[tuple[float, float]]:
        return [(1000 * generator.gauss(1, 0.03), 1.0) for _ in range(number)]

    assert is_wide(measure_throughput(blocks(5)))
    assert not is_wide(measure_throughput(blocks(200)))


@pytest.mark.parametrize(
    ("dof", "expected"),
    # Printed tables of Student's t, two-sided 95 %; the last is the normal's.
    [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (1e9, 1.960)],
)
def test_student_t_equals_the_printed_table(dof: float, expected: float) -> None:
    assert student_t(dof) == pytest.approx(expected, abs=5e-4)


@given(st.floats(1, 1e7), st.floats(1, 1e7))
def test_student_t_falls_with_degrees_of_freedom(one: float, other: float) -> None:
    few, many = sorted((one, other))
    assert student_t(few) >= student_t(many) - 1e-6


def test_student_t_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="dof must be at least 1, but got 0"):
        student_t(0)


def _process(
    generator: random.Random, *, block_sd: float, run_sd: float, correlation: float
) -> Throughput:
    """Simulate 12 blocks of a fresh process whose config runs at 1 env-step a second."""
    speed = 1 + run_sd * generator.gauss(0, 1)
    noise, blocks = generator.gauss(0, 1), []
    for _ in range(12):
        blocks.append((speed + block_sd * noise, 1.0))
        fresh = generator.gauss(0, 1)
        noise = correlation * noise + math.sqrt(1 - correlation**2) * fresh
    throughput = measure_throughput(blocks)
    assert throughput is not None
    return throughput


@pytest.mark.parametrize(
    ("block_sd", "run_sd", "correlation"),
    [(0.01, 0.03, 0.0), (0.03, 0.03, 0.0), (0.03, 0.01, 0.0), (0.03, 0.01, 0.5)],
)
def test_interval_covers_another_fresh_process(
    block_sd: float, run_sd: float, correlation: float
) -> None:
    # Each round: three replicates of a baseline give the spread, one process of another config
    # (also at 1 env-step/s) gives an interval, which should hold the next in 95 of 100 rounds.
    # 400 rounds: standard error √(0.95·0.05/400) = 0.011; four of them below is 0.906.
    generator = random.Random(1)
    covered = []
    for _ in range(400):
        processes = [
            _process(generator, block_sd=block_sd, run_sd=run_sd, correlation=correlation)
            for _ in range(5)
        ]
        low, high = interval(processes[0], run_spread(processes[2:])) or (0.0, 0.0)
        covered.append(low <= processes[1].sps <= high)
    assert statistics.fmean(covered) >= 0.906


def test_blocks_alone_would_not_cover_a_fresh_process() -> None:
    # The reason for run-to-run variance: with 3 % between processes and 1 % within, the blocks'
    # own 95 % interval (t(11) = 2.201, √v ≈ 0.01/√12 = 0.0029) reaches 0.64 % of 3.01 %: 17 %.
    generator = random.Random(2)
    covered = []
    for _ in range(400):
        process = _process(generator, block_sd=0.01, run_sd=0.03, correlation=0.0)
        half_width = student_t(11) * math.sqrt(process.block_variance or 0.0)
        covered.append(abs(process.sps - 1) <= half_width)
    assert statistics.fmean(covered) < 0.35
