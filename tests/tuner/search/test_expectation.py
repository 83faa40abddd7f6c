"""What is expected of configs, from the baseline alone and as more is measured."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tuner.score import FULL_UTIL, ScoreReferences
from tuner.search.expectation import DRAWS, MOST, Measured, Part, ScoreModel, Value, _of_rates
from tuner.search.priors import GRADIENT_STEPS, PRIORS, RATES_DOUBT, Curve, Prior, points_of
from tuner.space import CPU_SPACE, HardwareConfig

REFERENCES = ScoreReferences(sps=100_000.0)
BASELINE = HardwareConfig(64, 64, 4, 4)
ENV_STEPS = 2**19
"""Two million rows for 1,024 at once are 2**11 gradient steps of the baseline."""
MEASURED = Measured(BASELINE, device_util=60.0, quality_score=0.5, sps=100_000.0)
LARGER, MORE_EPOCHS = replace(BASELINE, num_minibatches=2), replace(BASELINE, num_epochs=8)


def model(*measured: Measured, running: Sequence[HardwareConfig] = ()) -> ScoreModel:
    return model_of([MEASURED, *measured], running)


def model_of(
    measured: Sequence[Measured],
    running: Sequence[HardwareConfig] = (),
    references: ScoreReferences = REFERENCES,
) -> ScoreModel:
    return ScoreModel(references, measured, running, env_steps=ENV_STEPS, priors=PRIORS["cpu"])


def mean(part: Part | None, config: HardwareConfig) -> float:
    assert part is not None
    return float(part.predict([config])[0][0])


def doubt(of: ScoreModel, config: HardwareConfig) -> float:
    assert of.quality is not None
    return float(of.quality.predict([config])[1][0])


def learned(doublings: float) -> float:
    """Return which share is learned after 2^`doublings` gradient steps."""
    curve = PRIORS["cpu"].quality.curve
    assert curve is not None
    return float(curve.of(np.array([doublings]))[0])


def test_half_is_learned_after_half_and_all_after_many_gradient_steps() -> None:
    shares = Curve(half=8.0, steepness=2.0).of(np.array([8.0, 9.0, 7.0, 40.0, -40.0]))
    assert shares == pytest.approx([0.5, 0.8, 0.2, 1.0, 0.0], abs=1e-9)


def test_a_config_lies_where_its_sizes_and_gradient_steps_say() -> None:
    (point,) = points_of([replace(BASELINE, learning_rate=2.0)], ENV_STEPS)
    assert point.tolist() == [10.0, 12.0, 2.0, 6.0, 1.0, 11.0]
    assert point[GRADIENT_STEPS] == 11.0


def test_what_was_measured_is_expected_again() -> None:
    assert mean(model().util, BASELINE) == pytest.approx(60.0 / FULL_UTIL)
    assert mean(model().quality, BASELINE) == pytest.approx(0.5)
    assert model().sps([BASELINE])[0] == pytest.approx(100_000.0)


@pytest.mark.parametrize(
    ("kind", "busier", "quicker"), [("cpu", -0.001, 0.114), ("gpu", 0.06, 0.1)]
)
def test_larger_minibatches_are_expected_to_keep_a_gpu_busier_and_to_learn_less(
    kind: str, busier: float, quicker: float
) -> None:
    # One doubling: of a GPU 0.06 of 80 % utilisation; half of the gradient steps; the speed.
    found = ScoreModel(REFERENCES, [MEASURED], env_steps=ENV_STEPS, priors=PRIORS[kind])
    assert mean(found.util, LARGER) == pytest.approx(60.0 / FULL_UTIL + busier)
    assert mean(found.quality, LARGER) == pytest.approx(0.5 * learned(10) / learned(11))
    assert found.sps([LARGER])[0] == pytest.approx(100_000.0 * 2**quicker)


def test_more_epochs_are_expected_to_learn_more_and_to_be_slower() -> None:
    expected = 0.5 * learned(12) / learned(11)
    assert mean(model().quality, MORE_EPOCHS) == pytest.approx(expected, abs=0.006)
    assert model().sps([MORE_EPOCHS])[0] == pytest.approx(100_000.0 * 2**-0.74)


def test_a_measurement_overrules_what_was_expected_there_and_around() -> None:
    surprise = Measured(LARGER, device_util=20.0, quality_score=0.9, sps=20_000.0)
    known, beyond = model(surprise), replace(LARGER, num_minibatches=1)
    # A neighbour that differs so much may be noise in part: the truth is expected between the two,
    # nearer to what was measured.
    assert 20.0 < FULL_UTIL * mean(known.util, LARGER) < (20.0 + 60.0) / 2
    assert (mean(model().quality, LARGER) + 0.9) / 2 < mean(known.quality, LARGER) < 0.9
    assert mean(known.quality, beyond) > mean(model().quality, beyond)
    assert known.sps([beyond])[0] < model().sps([beyond])[0]


def test_slopes_that_mislead_are_unlearned_once_enough_was_measured() -> None:
    # Every doubling of environments learns 0.12 more, where less was expected.
    known = [Value(replace(BASELINE, num_envs=64 * 2**n), 0.1 + 0.12 * n) for n in range(5)]
    beyond = replace(BASELINE, num_envs=64 * 2**5)
    expected = Prior((-0.03, 0.0, 0.03, 0.0), (3.0,) * 6, doubt=0.1, noise=0.3, slopes_doubt=0.35)
    held, free = (
        Part.fit(prior, known, ENV_STEPS)
        for prior in (replace(expected, slopes_doubt=0.0), expected)
    )
    assert mean(held, beyond) < 0.58 < mean(free, beyond)
    # What lies far from all that was measured is so much less certain.
    far = [HardwareConfig(8, 16, 8, 4)]
    assert held.predict(far)[1][0] < free.predict(far)[1][0]
    # Two values may differ by chance.
    assert Part.fit(expected, known[:2], ENV_STEPS).prior.slopes_doubt == 0.0
    # What is being measured decides nothing: it is expected to come as the slopes have it.
    for values in (known, known[:2]):
        alone, waiting = (
            Part.of(expected, values, ENV_STEPS, running=running) for running in ([], far)
        )
        assert alone is not None
        assert waiting is not None
        assert waiting.prior == alone.prior


def test_a_device_that_did_nothing_was_measured_all_the_same() -> None:
    idle = replace(MEASURED, device_util=0.0)
    assert mean(model_of([idle]).util, BASELINE) == 0.0
    unknown = replace(MEASURED, device_util=None)
    assert model_of([unknown]).util is None


def test_doubt_is_least_where_it_was_measured_and_grows_with_the_distance() -> None:
    far = HardwareConfig(8, 16, 8, 4)
    assert doubt(model(), BASELINE) < doubt(model(), LARGER) < doubt(model(), far)
    assert doubt(model(MEASURED, MEASURED), BASELINE) < doubt(model(), BASELINE)
    # Of a level and a config with variances 2 · learned(11)² and 1, the one value leaves, in units
    # of 4 · doubt² / (1 - 1 + 4), what its noise does; the mean of two has half of the noise.
    prior, before = PRIORS["cpu"].quality, 2 * learned(11) ** 2 + 1
    for times in (1, 2):
        found = doubt(model_of([replace(MEASURED, times=times)]), BASELINE)
        left = before - before**2 / (before + prior.noise / times)
        assert found == pytest.approx(prior.doubt * math.sqrt(left))


def test_what_is_being_measured_leaves_less_doubt_around_it_and_expects_nothing_new() -> None:
    other = replace(LARGER, num_minibatches=1)
    waiting = model(running=[LARGER])
    assert doubt(waiting, other) < doubt(model(), other)
    assert mean(waiting.quality, LARGER) == pytest.approx(mean(model().quality, LARGER), abs=0.02)
    assert waiting.quality is not None
    assert model().quality is not None
    assert waiting.quality.variance == model().quality.variance  # type: ignore[union-attr]


@pytest.mark.parametrize("running", [(), (replace(LARGER, num_envs=128),)])
def test_what_did_not_work_is_expected_of_what_is_like_it_alone(
    running: Sequence[HardwareConfig],
) -> None:
    # Also where slopes were unlearned, and there are more failures than measurements.
    steep = [
        Measured(replace(BASELINE, num_envs=64 * 2**n), 60.0, 0.1 + 0.12 * n, 100_000.0)
        for n in range(5)
    ]
    lost = [replace(LARGER, num_steps=16 * 2**n) for n in range(6)]
    far, near = HardwareConfig(8, 16, 8, 4), replace(lost[0], num_epochs=8)
    for measured in ([MEASURED], steep):
        whole, burnt = (
            ScoreModel(
                REFERENCES,
                measured,
                running,
                failed,
                env_steps=ENV_STEPS,
                priors=PRIORS["cpu"],
            )
            for failed in ([], [*lost, lost[0]])
        )
        for config in lost:
            assert mean(burnt.quality, config) == pytest.approx(0.0, abs=1e-3)
        expected, left = (mean(it.quality, near) for it in (whole, burnt))
        assert left < 0.9 * expected
        assert mean(burnt.quality, far) == pytest.approx(mean(whole.quality, far), abs=1e-3)
        assert doubt(burnt, near) == doubt(whole, near)
        assert burnt.sps(lost).tolist() == whole.sps(lost).tolist()


def test_where_nothing_is_learned_more_gradient_steps_do_no_harm() -> None:
    # Beside a slope that is expected, 0 is less than nothing at the baseline: no level is.
    few = replace(BASELINE, num_envs=512, num_steps=128, num_minibatches=2, num_epochs=2)
    prior = replace(PRIORS["cpu"].quality, slopes=(0.0, -0.05, 0.0, 0.0))
    assert Part.fit(prior, [Value(BASELINE, 0.0), Value(few, 0.0)], ENV_STEPS).level == 0.0


def test_where_learning_saturates_is_learned() -> None:
    # All is learned after so few gradient steps, or but half after so many.
    configs = [replace(BASELINE, num_envs=64 * 2**n) for n in range(-3, 4)]
    curve = PRIORS["cpu"].quality.curve
    assert curve is not None
    for away in (-2.0, 0.0, 2.0):
        truth = replace(curve, half=curve.half + away * curve.half_doubt)
        shares = truth.of(points_of(configs, ENV_STEPS)[:, GRADIENT_STEPS])
        known = [Value(*it) for it in zip(configs, (0.8 * shares).tolist(), strict=True)]
        found = Part.fit(PRIORS["cpu"].quality, known, ENV_STEPS).prior.curve
        assert found is not None
        assert found.half == pytest.approx(truth.half, abs=0.8)


def test_of_many_values_the_last_are_learned_from() -> None:
    old = Measured(BASELINE, device_util=60.0, quality_score=0.0, sps=1.0)
    known = model_of([old] * 10 + [MEASURED] * MOST)
    assert mean(known.quality, BASELINE) == pytest.approx(0.5)


def test_nothing_measured_is_nothing_expected() -> None:
    drawn = model_of([]).draw([BASELINE], random=np.random.default_rng(0))
    assert drawn.max() == 0.0


def test_what_learns_nothing_is_worth_nothing_however_busy_and_quick() -> None:
    lost = Measured(BASELINE, device_util=100.0, quality_score=0.0, sps=1e6)
    drawn = model_of([lost] * 50).draw([BASELINE], random=np.random.default_rng(0))
    assert np.median(drawn) == 0.0


def test_draws_are_scores() -> None:
    configs = CPU_SPACE.configs()
    drawn = model().draw(configs, random=np.random.default_rng(0))
    assert drawn.shape == (len(configs), DRAWS)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0


def test_only_the_parts_in_use_count() -> None:
    alone = ScoreReferences(sps=100_000.0, components=("sps",))
    unjudged = replace(MEASURED, device_util=None, quality_score=None)
    found = model_of([unjudged] * 50, references=alone)
    drawn = found.draw([BASELINE], random=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)


def test_slopes_are_no_less_sure_where_the_best_learning_rate_is_unknown() -> None:
    known = [Value(replace(BASELINE, learning_rate=1e-3), 0.5)]
    one, several = PRIORS["cpu"].quality, _of_rates(PRIORS["cpu"].quality, known)
    assert several.doubt == RATES_DOUBT > one.doubt
    assert several.doubt * several.slopes_doubt == pytest.approx(one.doubt * one.slopes_doubt)
    assert several.doubt**2 * several.noise == pytest.approx(one.doubt**2 * one.noise)
    assert _of_rates(one, [Value(BASELINE, 0.5)]) == one


def test_a_learning_rate_matters_for_quality_alone() -> None:
    known = [
        Measured(replace(BASELINE, learning_rate=rate), 60.0, quality, 100_000.0)
        for rate, quality in ((3e-4, 0.3), (3e-3, 0.8))
    ]
    found = model_of(known)
    slow, quick = (replace(LARGER, learning_rate=rate) for rate in (3e-4, 3e-3))
    assert mean(found.quality, slow) + 0.2 < mean(found.quality, quick)
    assert found.sps([slow])[0] == pytest.approx(found.sps([quick])[0], rel=1e-3)
