"""Searches replayed on a table that was made up, and what the replays say of them."""

import math
from dataclasses import replace
from functools import partial

import pytest
from grid import Grid, Row
from replay import Judge, p_score, regret_at, summary
from replay_methods import METHODS
from replay_study import Half, Method, halves, replay, worths
from replay_tables import NULLS

from tests.benchmarks.made_up_grid import made_up_grid
from tuner.space import HardwareConfig, SearchSpace

SPACE = SearchSpace((16, 64, 256), (16, 64), (2, 4), (2, 4))
BASELINE = HardwareConfig(64, 64, 4, 4)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return made_up_grid(SPACE)


@pytest.fixture(scope="module")
def searched(grid: Grid) -> Half:
    return halves(grid)[0]


def test_halves_share_no_measurement(grid: Grid) -> None:
    searched, judging = halves(grid)
    for half, repeats in ((searched, {0, 2}), (judging, {1, 3})):
        assert set(half.rows) == set(SPACE.configs())
        assert {m.record.replicate for rows in half.rows.values() for m in rows} == repeats


def test_the_first_measurement_of_a_config_pays_for_its_compilation(searched: Half) -> None:
    first, again = searched.rows[BASELINE]
    assert first.record.phases["compile"] == 4.0
    assert searched.cost_s(again, is_first=True) - searched.cost_s(again, is_first=False) == (
        pytest.approx(4.0 - 0.3)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_search_ends_within_its_budget_and_one_trial(method: str, searched: Half) -> None:
    found = replay(searched, METHODS[method], seed=0, budget_s=120.0)
    assert 0 < found.device_s < 120.0 + 20.0
    assert set(found.chosen) == {"balanced", "max_gpu", "max_quality"}
    assert set(found.chosen.values()) <= {*SPACE.configs()}


def test_equal_seeds_give_equal_searches(searched: Half) -> None:
    run = partial(replay, searched, METHODS["structured"], seed=3, budget_s=150.0)
    assert run(traced=True) == run(traced=True)


def test_an_exhaustive_search_has_no_regret(grid: Grid) -> None:
    searched, judging = halves(grid)
    judge = Judge.of(searched, judging)
    everything = replay(searched, METHODS["random"], seed=1, budget_s=None)
    assert everything.trials == len(SPACE.configs())
    regret = judge.regret("balanced", everything.chosen["balanced"])
    assert regret is not None
    assert regret < 0.1
    assert set(worths(judging, METHODS["grid"])["balanced"].figures) == set(SPACE.configs())


def test_a_flat_table_is_tied(grid: Grid) -> None:
    searched, judging = halves(NULLS["flat"](grid, 0))
    judge = Judge.of(searched, judging)
    assert judge.is_tied["balanced"]
    assert judge.regret("balanced", BASELINE) is None


def test_null_tables_have_as_many_measurements(grid: Grid) -> None:
    for null in NULLS.values():
        assert len(null(grid, 0).rows) == len(grid.rows)
    spoilt = NULLS["infeasible"](grid, 0).rows
    share = sum(row.record.status == "predicted_oom" for row in spoilt) / len(spoilt)
    assert share == pytest.approx(0.4, abs=0.05)


def test_what_was_not_reached_counts_as_never() -> None:
    assert regret_at([(0.1, 0.5), (0.2, 0.1)], 0.15) == 0.5
    assert regret_at([(0.1, 0.5)], 0.05) is None
    rows = [
        {"regrets": {s: dict.fromkeys(("balanced", "max_gpu", "max_quality"), r)
                     for s in ("0.05", "0.1", "0.2")},
         "trials": {"0.05": 1, "0.1": 3, "0.2": 5 + r},
         "share_to_near": near, "path": [r] * 40, "ooms": 0}
        for r, near in ((0.0, 0.1), (0.2, None))
    ]  # fmt: skip
    found = summary(rows, rows)
    assert found["balanced"]["0.1"]["success_rate"] == 0.5
    assert found["trials"] == {"0.05": 1, "0.1": 3, "0.2": 5.1}
    assert found["share_to_5pct"] == {"median": None, "p90": None, "never": 1}
    assert p_score(rows[:1], rows) == pytest.approx(1.0)


def test_the_lossless_pruner_saves_time_and_changes_no_profile(grid: Grid) -> None:
    def of_a_slow_device(row: Row) -> Row:
        """20 times as slow, and 24 % busy with the smallest batch to 96 % with the largest."""
        record, window_s = row.record, row.record.window_s or 0.0
        slow = replace(
            record,
            device_util=12 * (math.log2(row.config.batch_size) - 6),
            sps=(record.sps or 0.0) / 20,
            window_s=20 * window_s,
            duration=(record.duration or 0.0) + 19 * window_s,
        )
        curve = tuple(replace(point, seconds=20 * point.seconds) for point in row.curve)
        return replace(row, record=slow, curve=curve)

    searched, _ = halves(Grid(grid.facts, tuple(map(of_a_slow_device, grid.rows))))
    for seed in range(3):
        methods = [
            Method(METHODS["random"].make_sampler, {**METHODS["random"].settings, "pruner": name})
            for name in ("none", "lossless")
        ]
        whole, cut = (replay(searched, m, seed=seed, budget_s=None) for m in methods)
        assert cut.chosen == whole.chosen
        assert cut.trials == whole.trials
        assert cut.device_s < 0.9 * whole.device_s
