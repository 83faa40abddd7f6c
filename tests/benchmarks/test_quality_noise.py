"""How noisy measured learning is, on numbers made by hand."""

from dataclasses import replace

import pytest
from quality_noise import ESTIMATES, noise_of, noises, table_of, trained

from storage.records import CurvePoint
from tests.benchmarks.made_up_grid import made_up_grid
from tuner.space import SearchSpace

SPACE = SearchSpace((16, 64), (16, 64), (2, 4), (2, 4))


def test_noise_and_signal_by_hand() -> None:
    # Differences of 2, 0, 2: noise² = (4 + 0 + 4) / 3 / 2. The values 1, 3, 5, 5, 8, 10 have mean
    # 16/3 and variance 224/6 − (16/3)² = 80/9, so that signal² = 80/9 − 4/3.
    found = noise_of([(1.0, 3.0), (5.0, 5.0), (8.0, 10.0)])
    assert found["noise"] == pytest.approx((4 / 3) ** 0.5)
    assert found["signal"] == pytest.approx((80 / 9 - 4 / 3) ** 0.5)
    assert found["rank_correlation"] == 1.0
    assert noise_of([(0.0, 1.0), (1.0, 0.0)])["signal"] is None


def test_a_curve_is_read_at_equal_env_steps() -> None:
    row = next(iter(made_up_grid(SPACE).rows))
    # From 0 at 100 to 8 at 300 of 400 env-steps, then constant.
    points = tuple(
        CurvePoint(block=n, env_steps=steps, seconds=1.0, metrics={"mean_return": value})
        for n, (steps, value) in enumerate(((100, 0.0), (300, 8.0), (400, 8.0)))
    )
    row, about = replace(row, curve=points), {"env_steps": 400}
    assert trained(row, about, share=0.25) == pytest.approx(8.0)
    assert trained(row, about, share=0.5) == pytest.approx((8.0 + 6.0) / 2, abs=0.05)
    assert trained(row, about, share=1.0) == pytest.approx((0 + 4 * 2 + 8) / 4, abs=0.05)


def test_every_table_has_every_return() -> None:
    grid = made_up_grid(SPACE)
    assert set(noises(grid)) == set(ESTIMATES) - {"milestones"}, "none was evaluated before its end"
    grid = replace(
        grid,
        rows=tuple(
            replace(row, evaluation=replace(row.evaluation, earlier=(0.0, 0.1, 0.2)))
            for row in grid.rows
            if row.evaluation is not None
        ),
    )
    found = noises(grid)
    assert set(found) == set(ESTIMATES)
    # Equal values at three of four points: a quarter of the noise is left.
    assert found["milestones"]["noise"] == pytest.approx(found["evaluation"]["noise"] / 4)
    assert {row["configs"] for row in found.values()} == {len(SPACE.configs())}
    assert "whole curve" in table_of({"tables": {"made up": found}})
