import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.steady import find_steady
from tuner.throughput import is_wide, measure_throughput


def noisy(mean: float, count: int, *, seed: int = 0) -> list[float]:
    """Rates with a standard deviation of 1 %."""
    draw = random.Random(seed)
    return [draw.gauss(mean, 0.01 * mean) for _ in range(count)]


def test_slow_first_blocks_are_left_out() -> None:
    steadiness = find_steady([60.0, 80.0, 95.0, *noisy(100.0, 29)])
    assert steadiness.first_block == 3
    assert steadiness.is_steady


def test_blocks_that_only_vary_all_count() -> None:
    cut = sum(find_steady(noisy(100.0, 32, seed=seed)).first_block > 0 for seed in range(200))
    assert cut <= 6  # one in a hundred is the design; 6 of 200 would be three times that


def test_a_rate_that_keeps_falling_is_not_steady() -> None:
    # 100, 99, … 69: cut at the middle, where 84 … 69 remain. Halves 80.5 and 72.5 around 76.5.
    steadiness = find_steady([100.0 - step for step in range(32)])
    assert steadiness.first_block == 16
    assert steadiness.drift == pytest.approx(-8 / 76.5)
    assert not steadiness.is_steady


def test_a_drift_within_noise_or_below_two_percent_is_none() -> None:
    assert find_steady([100.0] * 10 + [101.5] * 10).is_steady
    assert find_steady([50.0, 150.0] * 8 + [60.0, 150.0] * 8).is_steady


def test_few_blocks_are_taken_as_they_are() -> None:
    steadiness = find_steady([10.0, 100.0, 100.0])
    assert (steadiness.first_block, steadiness.drift) == (0, None)
    assert find_steady([]).is_steady


@given(st.lists(st.floats(min_value=1.0, max_value=1e9), max_size=64))
def test_at_least_half_of_the_blocks_count(rates: list[float]) -> None:
    assert find_steady(rates).first_block <= len(rates) / 2


def test_throughput_is_that_of_the_steady_blocks() -> None:
    blocks = [(100.0, 100.0 / rate) for rate in (10.0, 10.0, *[100.0] * 30)]
    throughput = measure_throughput(blocks)
    assert throughput is not None
    assert throughput.steady_from_block == 2
    assert throughput.sps == pytest.approx(100.0)


def test_a_drift_widens_the_variance_and_asks_for_more_blocks() -> None:
    blocks = [(100.0, 1.0 + 0.02 * step) for step in range(16)]
    throughput = measure_throughput(blocks)
    assert throughput is not None
    assert not throughput.is_steady
    assert throughput.drift is not None
    assert throughput.block_variance is not None
    assert throughput.block_variance > throughput.drift**2
    assert is_wide(throughput)
