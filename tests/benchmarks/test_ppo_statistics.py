import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ppo_statistics import (
    best_of,
    best_seconds,
    bootstrap,
    bootstrap_relative,
    interquartile_mean,
    relative,
    round_ratios,
    spread_of,
)

RETURNS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20)


def test_quartiles_count_the_ends_in() -> None:
    # Positions 0, 1, 2, 3, 4 of the sorted values: the quartiles lie on 1 and 3.
    spread = spread_of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (spread.lower, spread.median, spread.upper) == (2.0, 3.0, 4.0)


def test_one_round_has_no_spread() -> None:
    spread = spread_of([7.0])
    assert (spread.lower, spread.median, spread.upper) == (7.0, 7.0, 7.0)


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one number, but got none"):
        spread_of([])


def test_the_best_peer_has_the_highest_median_and_not_the_highest_round() -> None:
    assert best_of({"steady": [10.0, 11.0, 10.0], "lucky": [9.0, 99.0, 9.0]}) == "steady"


def test_ratios_pair_the_rounds() -> None:
    # The second round was disturbed for both: its ratio tells so, a ratio of medians would not.
    assert round_ratios([20.0, 6.0], [10.0, 2.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="same number of rounds, but got 1 and 2"):
        round_ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # 8 values: 2 are cut at each end, the mean of 2, 3, 4, 5 is 3.5.
        ([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -100.0], 3.5),
        # 5 values: 1 is cut at each end, the mean of 1, 2, 6 is 3.
        ([2.0, -50.0, 6.0, 1.0, 50.0], 3.0),
        # 3 values: a quarter of them is less than one.
        ([1.0, 2.0, 6.0], 3.0),
    ],
)
def test_interquartile_mean(values: list[float], expected: float) -> None:
    assert interquartile_mean(values) == expected


@given(RETURNS)
def test_an_interquartile_mean_lies_within_its_values(values: list[float]) -> None:
    slack = 1e-9 * max(map(abs, values), default=0.0)
    assert min(values) - slack <= interquartile_mean(values) <= max(values) + slack


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (450.0, 500.0, 0.9),  # 450 / 500
        (-110.0, -100.0, 0.9),  # 10 worse than −100, of 100
        (-80.0, -100.0, 1.2),
    ],
)
def test_relative_rises_with_ours_whatever_the_sign(
    ours: float, theirs: float, expected: float
) -> None:
    assert relative(ours, theirs) == pytest.approx(expected)


def test_relative_to_nothing_is_unknown() -> None:
    assert math.isnan(relative(1.0, 0.0))


def test_a_bootstrap_of_equal_seeds_is_a_point() -> None:
    estimate = bootstrap([3.0] * 5)
    assert (estimate.lower, estimate.value, estimate.upper) == (3.0, 3.0, 3.0)


def test_a_bootstrap_holds_its_value_and_is_repeatable() -> None:
    values = [float(number) for number in range(20)]
    estimate = bootstrap(values)
    assert estimate == bootstrap(values)
    # The middle ten of 0 … 19 are 5 … 14, whose mean is 9.5.
    assert estimate.value == 9.5
    assert 0 < estimate.lower < 9.5 < estimate.upper < 19


def test_two_groups_are_compared_by_their_interquartile_means() -> None:
    # Middle halves: 10, 20 → 15 against 5, 15 → 10; 15 / 10.
    estimate = bootstrap_relative([0.0, 10.0, 20.0, 90.0], [1.0, 5.0, 15.0, 16.0])
    assert estimate.value == 1.5
    assert estimate.lower < 1.5 < estimate.upper


def test_the_least_of_at_least_three_repetitions_counts() -> None:
    # The clock is read before and after each run: 4, 1 and 2 seconds.
    readings = iter([0.0, 4.0, 10.0, 11.0, 20.0, 22.0])
    assert best_seconds(lambda: None, lambda: next(readings), budget_s=0.5) == 1.0
