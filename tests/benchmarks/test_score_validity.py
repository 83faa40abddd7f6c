"""What scores are worth: on a made-up table, and the choice of weights on figures made by hand."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from grid import Grid
from replay_cut import cut, without_milestones
from replay_half import halves
from score_validity import DEFAULTS, choose, in_words, result, simplex
from validity import (
    DRAWN,
    DRAWS,
    Choice,
    Truth,
    Validity,
    _among_drawn,
    mean_of,
    repeatability,
    smoothed,
    truth_of,
    validities,
)

from tests.benchmarks.made_up_grid import OPTIMUM, made_up_grid, quality
from tuner.space import CPU_BASELINE, HardwareConfig, SearchSpace

SPACE = SearchSpace((16, 64, 256), (16, 64), (2, 4), (2, 4))
DEFAULT = DEFAULTS[0]
LEARNING = (0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return made_up_grid(SPACE)


def table(**correlations: float) -> dict[Choice, Validity]:
    """Return figures of two budgets (0.5 and 1), for default weights and learning alone."""
    names = {"short": (0.5, DEFAULT), "short_learning": (0.5, LEARNING),
             "long": (1.0, DEFAULT), "long_learning": (1.0, LEARNING)}  # fmt: skip
    times = (2.0, 1.5, 2.5, 1.0)
    return {names[name]: Validity(value, *times) for name, value in correlations.items()}


@pytest.mark.parametrize(("step", "number"), [(0.2, 21), (0.5, 6 + 2)])
def test_weights_are_the_defaults_and_a_lattice_of_sum_one(step: float, number: int) -> None:
    weights = simplex(step)
    assert len(weights) == len(set(weights)) == number
    assert tuple(weights[:2]) == DEFAULTS
    assert all(math.isclose(sum(w), 1.0) for w in weights)


def test_a_row_is_cut_at_the_block_that_ends_the_budget(grid: Grid) -> None:
    short = cut(grid, 0.25)
    assert short.facts["env_steps"] == 50_000
    for before, after in zip(grid.rows, short.rows, strict=True):
        assert len(after.curve) == 8  # of 32 blocks
        assert after.curve == before.curve[:8]
        # The curve rises by 1/32 of its end a block: the mean of blocks 7 and 8 is 7.5/32 of it.
        end = before.curve[-1].metrics["mean_return"] or 0.0
        assert after.evaluation is not None
        assert after.evaluation.mean_return == pytest.approx(7.5 / 32 * end)


def test_evaluations_up_to_the_cut_count_where_there_are_any(grid: Grid) -> None:
    row = grid.rows[0]
    assert row.evaluation is not None
    evaluation = replace(row.evaluation, mean_return=0.4, earlier=(0.1, 0.2, 0.3))
    known = Grid(grid.facts, (replace(row, evaluation=evaluation),))
    for share, earlier, last in ((1.0, (0.1, 0.2, 0.3), 0.4), (0.5, (0.1,), 0.2), (0.25, (), 0.1)):
        found = cut(known, share).rows[0].evaluation
        assert found == replace(evaluation, mean_return=last, earlier=earlier)
    at_its_end = cut(without_milestones(known), 1.0).rows[0].evaluation
    assert at_its_end == replace(evaluation, earlier=())
    at_no_milestone = cut(known, 0.125).rows[0].evaluation
    assert at_no_milestone is not None
    assert at_no_milestone.earlier == ()


def test_the_truth_orders_by_time_and_then_by_progress(grid: Grid) -> None:
    half = halves(grid)[1]
    truth = truth_of(half)
    # 90 % of the optimum is reached by those whose return is made up to end above it.
    assert set(truth.seconds) == {
        config for config, rows in half.rows.items()
        if all((r.evaluation.mean_return if r.evaluation else 0.0) >= 0.9 * OPTIMUM for r in rows)
    }  # fmt: skip
    soonest = min(truth.seconds, key=truth.seconds.__getitem__)
    assert max(truth.scores, key=truth.scores.__getitem__) == soonest
    assert set(truth.smooth) == set(truth.seconds)
    never = [config for config in truth.scores if config not in truth.seconds]
    assert min(never, key=quality) == min(never, key=truth.scores.__getitem__)


def test_smoothed_times_are_nearer_to_the_truth_and_their_least_is_no_luck() -> None:
    space = SearchSpace((8, 32, 128, 512), (16, 32, 64, 128), (2, 8), (2, 4))
    configs = space.configs()
    true = np.array([c.batch_size**0.3 * c.num_minibatches**-0.2 * c.num_epochs**-0.5
                     for c in configs])  # fmt: skip
    errors, luck = [], []
    for seed in range(8):
        noisy = true * np.exp(0.2 * np.random.default_rng(seed).standard_normal(len(configs)))
        smooth = smoothed(dict(zip(configs, noisy.tolist(), strict=True)), space)
        found = (noisy, np.array([smooth[config] for config in configs]))
        errors.append([np.log(times / true).std() for times in found])
        luck.append([math.log(times.min() / true.min()) for times in found])
    assert np.mean(errors, axis=0)[1] < 0.6 * np.mean(errors, axis=0)[0]
    assert np.mean(luck, axis=0) == pytest.approx([-0.2, 0.0], abs=0.1)


def test_few_times_are_left_as_they_are() -> None:
    few = dict(zip(SPACE.configs()[:4], (1.0, 2.0, 3.0, 4.0), strict=True))
    assert smoothed(few, SPACE) == few


def test_times_are_of_the_ways_in_which_the_target_is_reached() -> None:
    once = mean_of([Validity(0.5, 2.0, None, 4.0, 1.0), Validity(0.7, reached=0.0)])
    assert once == Validity(pytest.approx(0.6), 2.0, None, 4.0, 0.5)
    never = {(0.5, DEFAULT): Validity(0.5, reached=0.0), (1.0, DEFAULT): once}
    found = result({"one": never}, {"one": Validity(0.9)}, {"one": "stress"})
    assert [row["reached"] for row in found["tables"]["one"]] == [0.0, 0.5]
    assert "0.60    2.00 ×              4.00 ×       50%" in in_words(found)
    assert "0.50                                      0%" in in_words(found)


def test_half_against_half_is_how_they_agree(grid: Grid) -> None:
    quiet, loud = (
        repeatability([truth_of(half) for half in halves(one)], CPU_BASELINE)
        for one in (grid, made_up_grid(SPACE, noise=0.3))
    )
    assert quiet.correlation is not None
    assert loud.correlation is not None
    assert loud.correlation < quiet.correlation <= 1.0


def test_true_times_choose_the_soonest_where_nothing_is_noisy_and_are_unlucky_elsewhere() -> None:
    first, second = SPACE.configs()[:2]
    seconds = {first: 1.0, second: 2.0}
    quiet = Truth({first: 2.0, second: 1.0}, seconds, seconds)
    assert repeatability([quiet, quiet], first) == Validity(pytest.approx(1.0), *[1.0] * 6)
    other = {first: 4.0, second: 2.0}
    unlucky = repeatability([quiet, Truth({first: 1.0, second: 2.0}, other, other)], first)
    twice = pytest.approx(2.0)
    assert unlucky == Validity(pytest.approx(-1.0), 2.0, 1.0, 2.0, 1.0, twice, 1.0)
    never = Truth({first: 1.0, second: 2.0}, {}, {})
    # Of two ways the one has nobody who reached the target, the other nobody to choose.
    assert repeatability([quiet, never], first) == Validity(pytest.approx(-1.0))
    only = {second: 2.0}
    # The one chooses what did not reach the target again, the other what took twice as long.
    once = repeatability([quiet, Truth({first: 1.0, second: 2.0}, only, only)], first)
    # Of what is drawn, too: no sooner than the one that did, and twice: √(1 · 2) in the mean.
    assert once == Validity(pytest.approx(-1.0), 2.0, 1.0, 2.0, 0.5, pytest.approx(2**0.5), 0.5)


def test_what_is_drawn_always_holds_the_baseline_which_may_be_the_soonest() -> None:
    baseline, *others = SPACE.configs()
    seconds = dict.fromkeys(others, 2.0) | {baseline: 1.0}
    reached = Truth({}, seconds, seconds)
    asked: list[set[HardwareConfig]] = []

    def never_the_baseline(configs: Iterable[HardwareConfig]) -> HardwareConfig:
        asked.append(set(configs))
        return max(configs)

    worth = _among_drawn(
        Validity(0.5), never_the_baseline, SPACE.configs(), reached, baseline=baseline
    )
    assert (worth.among_drawn, worth.drawn_reached) == (pytest.approx(2.0), 1.0)
    assert len(asked) == DRAWS
    assert all(baseline in drawn and len(drawn) == DRAWN for drawn in asked)
    # A choice that did not reach the return counts as the slowest that did, and is told.
    half = Truth({}, {}, {baseline: 1.0, others[0]: 3.0})
    none = _among_drawn(Validity(), never_the_baseline, SPACE.configs(), half, baseline=baseline)
    assert (none.among_drawn, none.drawn_reached) == (pytest.approx(3.0), 0.0)


def test_on_a_table_where_learning_decides_its_weight_orders_best(grid: Grid) -> None:
    speed = (0.0, 0.0, 1.0)
    truths = [truth_of(half) for half in halves(grid)]
    found = validities(grid, truths, shares=(0.25,), candidates=[DEFAULT, LEARNING, speed])
    learning, alone = found[0.25, LEARNING], found[0.25, speed]
    assert learning.correlation is not None
    assert alone.correlation is not None
    assert alone.correlation < 0.5 < 0.9 < learning.correlation <= 1.0
    assert found[0.25, DEFAULT].slowdown == pytest.approx(1.0, abs=0.2)


def test_the_weights_that_order_best_are_chosen_and_tested_on_the_other() -> None:
    one = table(short=0.80, short_learning=0.90, long=0.85, long_learning=0.91)
    other = table(short=0.70, short_learning=0.20, long=0.95, long_learning=0.60)
    assert choose([one], 0.5) == (0.5, LEARNING)
    assert choose([other], 1.0) == (1.0, DEFAULT)
    environments = {"one": "stress", "other": "cartpole"}
    worths = {"one": Validity(0.95, 1.5, 1.0, 1.75, 1.0), "other": Validity()}
    found = result({"one": one, "other": other}, worths, environments)
    assert found["left_out"]["one"][1] == {
        "share": 1.0, "weights": list(DEFAULT), "correlation": 0.85, "slowdown": 2.0,
        "at_least": 1.5, "at_most": 2.5, "reached": 1.0, "among_drawn": None, "drawn_reached": None,
    }  # fmt: skip
    assert [row["correlation"] for row in found["left_out"]["other"]] == [0.20, 0.60]
    # (0.80 + 0.70) / 2 and (0.85 + 0.95) / 2: the default, for either budget.
    assert [row["correlation"] for row in found["chosen"]] == pytest.approx([0.75, 0.90])
    lines = in_words(found).splitlines()
    repeats = "0.95    1.50 ×    1.00 ×    1.75 ×      100%"
    assert f"one                             true times         {repeats}" in lines
    figures = "0.20    2.00 ×    1.50 ×    2.50 ×      100%"
    assert f"other                 50.0%          0/1/0         {figures}" in lines
    assert [line.split()[2] for line in lines[-2:]] == [
        "/".join(f"{w:g}" for w in DEFAULT),
        "0/1/0",
    ]
    # Tables of one environment are not held against each other.
    alone = result({"one": one, "other": other}, {}, dict.fromkeys(environments, "stress"))
    assert alone["left_out"] == {"one": [], "other": []}


def test_of_weights_that_order_alike_the_quickest_is_chosen() -> None:
    # Of the whole table it is one config that is lucky: the mean over draws decides.
    slow = Validity(0.80, 1.0, among_drawn=1.5, drawn_reached=1.0)
    quick = Validity(0.79, 2.0, among_drawn=1.2, drawn_reached=1.0)
    once = Validity(0.80, 1.1, among_drawn=1.6, drawn_reached=0.5)
    worse = Validity(0.75, 1.0, among_drawn=1.0, drawn_reached=1.0)
    found = {(1.0, w): v for w, v in zip(simplex(0.2), (slow, quick, once, worse), strict=False)}
    assert found[choose([found], 1.0)] == quick
    assert choose([{(1.0, DEFAULT): Validity()}], 1.0) is None
    # What is not known on every environment is not held against what is.
    one = {(1.0, DEFAULT): Validity(0.5), (1.0, LEARNING): Validity(0.8)}
    other = {(1.0, DEFAULT): Validity(0.5), (1.0, LEARNING): Validity()}
    assert choose([one, other], 1.0) == (1.0, DEFAULT)


def test_the_budget_is_the_shortest_that_is_enough_on_every_table() -> None:
    names = {"one": "stress", "other": "cartpole"}
    enough = table(short=0.80, long=0.90)
    found = {"one": enough, "other": enough}
    for highest, budget in ((0.85, 0.5), (0.95, 1.0), (1.0, 1.0), (1.01, None)):
        told = result(found, {"one": Validity(0.5), "other": Validity(highest)}, names)
        assert told["budget"] == budget
        words = "none" if budget is None else f"{budget:.1%}"
        assert f"0.9 of half against half on every table: {words}" in in_words(told)
