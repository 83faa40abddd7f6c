"""Searches on a made-up table that end when little is left to gain, held against the truth."""

import pytest
from until_regret import Stop, stops_on, summary

from tests.benchmarks.made_up_grid import made_up_grid
from tuner.space import SearchSpace

SPACE = SearchSpace((16, 64, 256), (16, 64), (2, 4), (2, 4))


def test_the_summary_counts_only_what_stopped_by_itself() -> None:
    found = summary([Stop(20, True, 0.005), Stop(30, True, 0.03), Stop(80, False, 0.5)], 0.01)
    assert found == {"searches": 3, "stopped": 2, "median_trials": 25, "kept": 1,
                     "median_regret": pytest.approx(0.0175), "worst_regret": 0.03}  # fmt: skip


def test_searches_stop_before_the_space_is_tried_and_little_was_left() -> None:
    stops = stops_on(made_up_grid(SPACE), "random", 0.02, seeds=range(3), min_trials=8)
    assert any(stop.is_by_regret for stop in stops)
    assert all(8 <= stop.trials <= 12 for stop in stops)
    assert max(stop.regret for stop in stops if stop.is_by_regret) < 0.05


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_over_twenty_seeds_four_of_five_stops_keep_their_word() -> None:
    stops = stops_on(made_up_grid(), "structured", 0.01, seeds=range(20), min_trials=20)
    found = summary(stops, 0.01)
    assert found["stopped"] >= 15
    assert found["kept"] >= 0.8 * found["stopped"]
