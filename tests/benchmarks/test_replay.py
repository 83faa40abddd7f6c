"""Searches replayed on a table that was made up, and what the replays say of them."""

import itertools
import math
import random
import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from grid import Grid, Row, write_grid
from priors import (
    MOST_DOUBT,
    TRUSTED,
    Learned,
    curve_of,
    fit_of,
    fits_of,
    priors_of,
    slopes_apart,
)
from priors import mean_of as mean_of_fits
from replay import regret_at, run_all
from replay_figures import ahead_of, mean_of, p_score, summary
from replay_half import Half, halves
from replay_judge import Judge, both_ways, judged, worths
from replay_methods import LEFT_OUT, METHODS
from replay_plot import plot
from replay_study import Method, NoHeartbeat, calibrated, exported, replay
from replay_tables import NULLS
from replay_words import in_words

from tests.benchmarks.made_up_grid import made_up_grid
from tuner.aggregate import hardware_of
from tuner.finalists import (
    MOST_CONTENDERS,
    close_behind,
    confirm,
    contest_of,
    hold_contest,
    num_finalists,
    unconfirmed,
)
from tuner.profile_rules import UTIL_TIE
from tuner.score import FULL_UTIL
from tuner.search.priors import GRADIENT_STEPS, PRIORS, Curve, points_of
from tuner.space import HardwareConfig, SearchSpace
from tuner.stopping import expected_again_s
from tuner.trials import search

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
    assert set(judge.worths["balanced"].figures) == set(SPACE.configs())


def test_means_of_two_measurements_are_tied_within_less(grid: Grid) -> None:
    records, references, _ = judged(halves(grid)[0], METHODS["grid"])
    rules = contest_of(records, references, min_feasible=1).rules
    ties = {name: worth.tie for name, worth in worths(records, references).items()}
    assert ties["balanced"] == pytest.approx(rules.epsilon / math.sqrt(2))
    assert ties["max_quality"] == pytest.approx(rules.quality_tie / math.sqrt(2))
    assert ties["max_gpu"] == UTIL_TIE


def test_a_flat_table_is_tied(grid: Grid) -> None:
    searched, judging = halves(NULLS["flat"](grid, 0))
    judge = Judge.of(searched, judging)
    assert judge.is_tied["balanced"]
    assert judge.gap_in_ties("balanced") <= 1.0
    assert judge.regret("balanced", BASELINE) is None


def test_a_gap_is_told_in_ties(grid: Grid) -> None:
    judge = Judge.of(*halves(grid))
    gap = judge.best["balanced"] - judge.median["balanced"]
    tie = judge.worths["balanced"].tie
    assert judge.gap_in_ties("balanced") == pytest.approx(gap / tie)
    silent = replace(judge, worths={"balanced": replace(judge.worths["balanced"], tie=0.0)})
    assert silent.gap_in_ties("balanced") == math.inf
    alike = replace(silent, median=judge.best)
    assert alike.gap_in_ties("balanced") == 0.0


def test_null_tables_have_as_many_measurements(grid: Grid) -> None:
    for null in NULLS.values():
        assert len(null(grid, 0).rows) == len(grid.rows)
    spoilt = NULLS["infeasible"](grid, 0).rows
    for status in ("predicted_oom", "oom"):
        gone = [row for row in spoilt if row.record.status == status]
        assert len(gone) / len(spoilt) == pytest.approx(0.2, abs=0.05)
        assert BASELINE not in {row.config for row in gone}
        assert all(row.record.device_util is None for row in gone)


def test_an_opposed_table_learns_as_its_opposite_does_at_speeds_of_its_own(grid: Grid) -> None:
    moved = {(row.config, row.repeat): row for row in NULLS["opposed"](grid, 0).rows}
    known = {(row.config, row.repeat): row for row in grid.rows}
    assert moved.keys() == known.keys()
    one, other = HardwareConfig(16, 16, 4, 2), HardwareConfig(256, 64, 2, 4)
    for repeat in range(4):
        row, taught_by, own = moved[one, repeat], known[other, repeat], known[one, repeat]
        assert row.record.mean_return == taught_by.record.mean_return != own.record.mean_return
        assert row.evaluation == taught_by.evaluation
        assert [p.metrics for p in row.curve] == [p.metrics for p in taught_by.curve]
        assert row.record.sps == own.record.sps
        assert row.record.device_util == own.record.device_util
        seconds = sum(point.seconds for point in row.curve)
        assert seconds == pytest.approx(sum(point.seconds for point in own.curve))


def test_what_is_measured_more_often_than_its_opposite_has_luck_of_its_own(grid: Grid) -> None:
    other = HardwareConfig(64, 16, 2, 2)
    rows = tuple(row for row in grid.rows if row.config != other or row.repeat < 2)
    moved = [r for r in NULLS["opposed"](Grid(grid.facts, rows), 0).rows if r.config == BASELINE]
    returns = [row.evaluation.mean_return for row in moved if row.evaluation is not None]
    assert len(set(returns)) == len(returns) == 4
    # What did not succeed teaches nothing.
    lost = tuple(
        replace(row, record=replace(row.record, status="oom")) if row.config == other else row
        for row in grid.rows
    )
    kept = NULLS["opposed"](Grid(grid.facts, lost), 0).rows
    assert [r for r in kept if r.config == BASELINE] == [r for r in lost if r.config == BASELINE]


def test_on_shuffled_tables_nothing_is_gained_over_random(tmp_path: Path) -> None:
    space = SearchSpace((8, 32, 128, 512), (16, 32, 64, 128), (2, 8), (2, 4))
    write_grid(tmp_path / "made-up.json.gz", made_up_grid(space, repeats=2))
    tables, methods = [tmp_path / "made-up.json.gz"], ["structured", "random"]
    found = run_all(tables, methods, seeds=4, nulls=["shuffled"])["tables"]
    assert abs(found["made-up (shuffled)"]["structured"]["balanced"]["p_score"]) < 0.35
    ours, random = (found["made-up"][m]["balanced"] for m in methods)
    # As good as all measurements at a fifth of them; nothing is exported of fewer than three
    # configs, for a third of that time, so that no P-score here could be much above a half.
    assert ours["regret"]["0.2"]["mean"]["value"] < 0.02
    assert random["regret"]["0.2"]["mean"]["value"] > 0.1
    assert ours["p_score"] > 0.4


def test_each_half_is_judged_by_the_other(grid: Grid) -> None:
    ways = both_ways(grid)
    repeats = [
        {m.record.replicate for rows in half.rows.values() for m in rows} for half, _ in ways
    ]
    assert repeats == [{0, 2}, {1, 3}]
    assert ways[0][1].seen != ways[1][1].seen
    assert ways[0][1].worths["balanced"].figures == pytest.approx(ways[1][1].seen, abs=0.05)


def test_a_trial_that_reaches_into_the_finalists_time_is_stopped_and_tells_nothing(
    grid: Grid,
) -> None:
    def slow_if_large(row: Row) -> Row:
        """One config in six takes 40 seconds more: longer than the upper quartile."""
        is_slow = (row.config.num_envs, row.config.num_steps) == (256, 64)
        duration = (row.record.duration or 0.0) + 40.0 * is_slow
        return replace(row, record=replace(row.record, duration=duration))

    searched, _ = halves(Grid(grid.facts, tuple(map(slow_if_large, grid.rows))))
    stopped = []
    for budget_s in range(90, 150, 2):
        session = calibrated(searched, METHODS["random"], seed=0, budget_s=budget_s)
        heartbeat: Any = NoHeartbeat()
        search(session, heartbeat)
        assert session.clock.now_s < budget_s
        stopped += [r for r in session.records() if r.status == "interrupted"]
    assert stopped
    assert {(r.sps, r.mean_return, r.final_score) for r in stopped} == {(None, None, None)}


def test_a_search_keeps_time_for_no_more_finalists_than_are_expected(searched: Half) -> None:
    unlimited = calibrated(searched, METHODS["random"], seed=0, budget_s=None)
    session = calibrated(searched, METHODS["random"], seed=0, budget_s=150.0)
    # Nothing can be chosen of the baseline alone: each profile may be another config.
    assert num_finalists(unlimited, others=0) == num_finalists(session, others=0) == 3
    heartbeat: Any = NoHeartbeat()
    search(session, heartbeat)
    chosen = {config for config in exported(session).values() if config != BASELINE}
    assert num_finalists(session, others=0) == min(3, len(chosen) + 1)
    assert num_finalists(session, others=1) == 3
    assert confirm(session) == []
    assert num_finalists(session, others=0) == 1
    # With time for all it is not asked who they are.
    session.config = session.config.model_copy(update={"budget": 10_000.0})
    assert num_finalists(session, others=0) == 3


def test_the_chosen_and_what_came_close_are_measured_twice(grid: Grid) -> None:
    # Of so noisy a table more than one config may be the best.
    searched, _ = halves(made_up_grid(SPACE, noise=0.1, seed=3))
    session = calibrated(searched, METHODS["random"], seed=0, budget_s=None)
    heartbeat: Any = NoHeartbeat()
    search(session, heartbeat)
    assert unconfirmed(session)
    assert confirm(session) == []
    assert unconfirmed(session) == []
    close = [summary.config for summary in close_behind(session)]
    assert 0 < len(close) <= MOST_CONTENDERS
    # No time for one and for a choice that it moves: none is measured.
    unlimited, again_s = session.config, expected_again_s(session.records())
    budget_s = session.clock.now_s + 1.9 * again_s
    session.config = unlimited.model_copy(update={"budget": budget_s})
    before = session.records()
    assert hold_contest(session) == []
    assert session.records() == before
    session.config = unlimited
    assert hold_contest(session) == []
    again = [hardware_of(r) for r in session.records() if r not in before]
    assert set(close) <= set(again)
    assert unconfirmed(session) == []


def test_a_repeat_that_was_not_recorded_is_not_made() -> None:
    searched, _ = halves(made_up_grid(SPACE, repeats=2))
    session = calibrated(searched, METHODS["random"], seed=0, budget_s=None)
    heartbeat: Any = NoHeartbeat()
    search(session, heartbeat)
    before_s, chosen = session.clock.now_s, exported(session)
    hold_contest(session)
    assert session.clock.now_s == before_s
    assert exported(session) == chosen
    again = [r for r in session.records() if r.trial > 0 and r.replicate > 0]
    assert {r.status for r in again} == {"interrupted"}


def test_null_tables_leave_the_baseline_and_disturb_returns(grid: Grid) -> None:
    of_baseline = [row for row in grid.rows if row.config == BASELINE]
    moved = NULLS["shuffled"](grid, 0).rows
    assert [row for row in moved if row.config == BASELINE] == of_baseline
    assert [row.config for row in moved] != [row.config for row in grid.rows]
    pairs = list(zip(NULLS["noisy"](grid, 0).rows, grid.rows, strict=True))
    slower = [(was.record.sps or 0.0) / (row.record.sps or 1.0) for row, was in pairs]
    luck = [
        row.evaluation.mean_return / was.evaluation.mean_return
        for row, was in pairs
        if row.evaluation and was.evaluation and was.evaluation.mean_return > 0
    ]
    assert len(luck) > len(pairs) / 2
    for factors in (slower, luck):
        assert statistics.fmean(factors) == pytest.approx(1.0, abs=0.05)
        assert statistics.stdev(factors) == pytest.approx(0.1, rel=0.3)
    for row, was in pairs:
        longer_s = (row.record.duration or 0.0) - (was.record.duration or 0.0)
        assert longer_s == pytest.approx((row.record.window_s or 0) - (was.record.window_s or 0))


def test_expectations_are_fitted_to_other_tables(tmp_path: Path) -> None:
    # Utilisation is 50 + 4 · log₂(batch) percent: below 100 for up to 4,096 env-steps.
    space = SearchSpace((16, 64), (16, 64), (2, 4), (2, 4))
    table = made_up_grid(space, repeats=2)
    curve = PRIORS["cpu"].quality.curve
    assert curve is not None
    fit = fits_of(table, curve)["util"]
    assert fit.slopes == pytest.approx([0.0, 4 / FULL_UTIL, 0.0, 0.0], abs=1e-9)
    assert fit.noise == 0.0
    # Of a table with half the slope and one with the whole: three quarters.
    flatter = [
        replace(row, record=replace(row.record, device_util=(row.record.device_util or 0.0) / 2))
        for row in table.rows
    ]
    elsewhere = {**table.facts["settings"], "env": "gymnax:CartPole-v1"}
    halved = Grid({**table.facts, "settings": elsewhere}, tuple(flatter))
    expected = TRUSTED["util"] * 3 / FULL_UTIL
    assert priors_of([table, halved]).util.slopes[1] == pytest.approx(expected)
    # An environment counts once, however many tables it has.
    again = Grid({**table.facts, "settings": {"env": "stress"}}, table.rows)
    assert priors_of([table, again, halved]) == priors_of([table, halved])
    # Of four slopes one is 4 of 80 % in the one table and 2 in the other: √((2 / 80)² / 2 / 4).
    apart = slopes_apart([fits_of(table, curve), fits_of(halved, curve)])
    assert apart["util"] == pytest.approx(2 / FULL_UTIL / math.sqrt(8))
    both = mean_of_fits([fits_of(table, curve), fits_of(halved, curve)])["util"]
    # Of tables without any noise the doubt is bounded.
    assert apart["util"] / both.deviation > MOST_DOUBT
    assert priors_of([table, halved]).util.slopes_doubt == MOST_DOUBT
    assert slopes_apart([fits_of(table, curve)]) is None
    assert priors_of([table]).util.slopes_doubt == PRIORS["cpu"].util.slopes_doubt
    unmeasured = [replace(r, record=replace(r.record, device_util=None)) for r in table.rows]
    with pytest.raises(ValueError, match="must have util of 6 configs or more"):
        fits_of(replace(table, rows=tuple(unmeasured)), curve)
    paths = [tmp_path / f"{name}.json.gz" for name in ("one", "other")]
    for path, grid in zip(paths, (table, halved), strict=True):
        write_grid(path, grid)
    found = run_all(paths, [LEFT_OUT], seeds=2, nulls=[])["methods"]
    assert found[LEFT_OUT]["replays"] == 4
    # With no other environment there is nothing to expect.
    write_grid(paths[1], again)
    with pytest.raises(ValueError, match="two environments"):
        run_all(paths, [LEFT_OUT], seeds=2, nulls=[])


def test_how_learning_saturates_is_fitted_to_a_table() -> None:
    # Half of 0.8 is learned after 2**7 gradient steps of 4,096 env-steps.
    truth = Curve(half=7.0, steepness=1.5)
    doublings = points_of(SPACE.configs(), 2**12)[:, GRADIENT_STEPS]
    assert doublings.min() < 7.0 < doublings.max()
    learned = Learned(doublings, 0.8 * truth.of(doublings))
    found = curve_of(learned)
    assert (found.half, found.steepness) == pytest.approx((7.0, 1.5), abs=0.01)
    assert abs(learned.rest(truth)).max() < 1e-9
    steeper = curve_of(learned, steepness=2.0)
    assert steeper.steepness == 2.0
    assert steeper.half < found.half


def test_environments_tell_how_far_curves_lie_apart(grid: Grid) -> None:
    around = fits_of(grid, Curve(half=7.0, steepness=1.0))
    quality = replace(around["quality"], curve=Curve(half=9.0, steepness=4.0))
    between = mean_of_fits([around, around | {"quality": quality}])["quality"]
    assert between.curve == Curve(half=8.0, steepness=2.0, half_doubt=math.sqrt(2))
    assert between.steps_length == around["quality"].steps_length is not None
    # Of one environment nobody knows: it is as on any CPU.
    supposed, alone = PRIORS["cpu"].quality.curve, priors_of([grid]).quality.curve
    assert supposed is not None
    assert alone is not None
    assert alone.half_doubt == supposed.half_doubt


def test_a_repeats_noise_is_not_taken_for_what_configs_differ_by() -> None:
    # Configs differ by ± 1 beside the slopes, measurements by ± 0.5.
    configs, draws = SPACE.configs(), random.Random(0)
    for number in (2, 20):
        values = {
            config: [truth + draws.choice((-0.5, 0.5)) for _ in range(number)]
            for config in configs
            for truth in [draws.choice((-1.0, 1.0))]
        }
        fit = fit_of(values, env_steps=2**16)
        assert fit.noise == pytest.approx(0.5, rel=0.3)
        assert fit.deviation == pytest.approx(1.0, rel=0.3)


def test_seeds_alone_do_not_narrow_an_interval() -> None:
    values = [0.0] * 100 + [1.0] * 100
    of_halves = mean_of(values, [("table", 0)] * 100 + [("table", 1)] * 100)
    assert of_halves == {"value": 0.5, "lower": 0.0, "upper": 1.0}
    places = [(table, i % 2) for table in ("one", "other") for i in range(100)]
    of_tables = mean_of(values, places)
    assert of_tables == {"value": 0.5, "lower": 0.0, "upper": 1.0}
    of_seeds = mean_of([0.0, 1.0] * 100, [("table", i // 2 % 2) for i in range(200)])
    assert 0.4 < of_seeds["lower"] < 0.5 < of_seeds["upper"] < 0.6


def test_what_was_not_reached_counts_as_never() -> None:
    assert regret_at([(0.1, 0.5), (0.2, 0.1)], 0.15) == 0.5
    assert regret_at([(0.1, 0.5)], 0.05) is None
    profiles = ("balanced", "max_gpu", "max_quality")
    shares = ("0.05", "0.1", "0.2")
    rows = [
        {
            "regrets": {s: dict.fromkeys(profiles, regret) for s in shares},
            "trials": {"0.05": 1, "0.1": 3, "0.2": 5 + regret},
            "exact": dict.fromkeys(shares, 0.4),
            "share_to_near": dict.fromkeys(profiles, near),
            "paths": dict.fromkeys(profiles, [regret] * 40),
            "ooms": 0,
            "device_s": 100.0,
            "overrun": -0.1,
            "place": ("made up", 0),
        }
        for regret, near in ((0.0, 0.1), (0.2, None))
    ]
    found = summary(rows, rows)
    balanced = found["balanced"]
    assert balanced["regret"]["0.1"]["success"]["value"] == 0.5
    assert found["trials"] == {"0.05": 1, "0.1": 3, "0.2": 5.1}
    # By 0.1 one of the two has come near: half of them.
    assert balanced["share_to_5pct"] == {"median": 0.1, "p90": None, "never": 1}
    assert balanced["device_s_to_5pct"] == {"median": 10.0, "p90": None, "never": 1}
    assert balanced["regret"]["0.1"]["success_by_half"] == [0.5]
    assert p_score("balanced", rows[:1], rows) == pytest.approx(1.0)
    # 0.2 all the time, where both come to 0.1 on average: twice the regret.
    assert p_score("balanced", rows[1:], rows) == pytest.approx(-1.0)
    gap = ahead_of(rows[1:], rows[:1])
    assert gap is not None
    assert gap["value"] == pytest.approx(0.2)
    assert gap["by_half"] == [pytest.approx(0.2)]


def test_random_search_is_expected_exactly(grid: Grid) -> None:
    judge = Judge.of(*halves(grid))
    configs = sorted(judge.seen)
    assert judge.random_regret(1) == judge.regret("balanced", judge.baseline)
    best = max(judge.seen, key=judge.seen.__getitem__)
    assert judge.random_regret(len(configs)) == judge.regret("balanced", best)
    others = [c for c in configs if c != judge.baseline]
    pairs = list(itertools.combinations(others, 2))
    mean = statistics.fmean(
        judge.regret("balanced", max((judge.baseline, *pair), key=judge.seen.__getitem__)) or 0.0
        for pair in pairs
    )
    assert judge.random_regret(3) == pytest.approx(mean)


def test_a_replay_is_told_in_words_and_drawn(grid: Grid, tmp_path: Path) -> None:
    folder = tmp_path / "grids"
    folder.mkdir()
    write_grid(folder / "made-up.json.gz", grid)
    document = run_all(
        [folder / "made-up.json.gz"], ["structured", "random"], seeds=2, nulls=["flat"]
    )
    assert set(document["tables"]) == {"made-up", "made-up (flat)"}
    words = in_words(document)
    assert "structured against random, seed by seed" in words
    assert "random, exactly" in words
    assert max(map(len, words.splitlines())) < 200
    plot(document, tmp_path / "replay.svg")
    assert "structured" in (tmp_path / "replay.svg").read_text()


# With a CPU's weights, by which quality decides more and is known last, it may save less.
@pytest.mark.parametrize(("weights", "most"), [("0.4,0.4,0.2", 0.9), ("0.2,0.6,0.2", 1.0)])
def test_the_lossless_pruner_saves_time_and_changes_no_profile(
    grid: Grid, weights: str, most: float
) -> None:
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
        settings = {**METHODS["random"].settings, "weights": weights}
        methods = [
            Method(METHODS["random"].make_sampler, {**settings, "pruner": name})
            for name in ("none", "lossless")
        ]
        whole, cut = (replay(searched, m, seed=seed, budget_s=None) for m in methods)
        assert cut.chosen == whole.chosen
        assert cut.trials == whole.trials
        assert cut.device_s < most * whole.device_s
