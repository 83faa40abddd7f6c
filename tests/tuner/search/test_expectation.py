"""What is expected of configs, from the baseline alone and as more is measured."""

from dataclasses import replace

import numpy as np
import pytest

from tuner.score import FULL_UTIL, ScoreReferences
from tuner.search.expectation import DRAWS, Measured, ScoreModel
from tuner.space import CPU_SPACE, HardwareConfig

REFERENCES = ScoreReferences(sps=100_000.0)
BASELINE = HardwareConfig(64, 64, 4, 4)
MEASURED = Measured(BASELINE, device_util=60.0, quality_score=0.5, sps=100_000.0)
LARGER, MORE_EPOCHS = replace(BASELINE, num_minibatches=2), replace(BASELINE, num_epochs=8)


def model(*measured: Measured) -> ScoreModel:
    return ScoreModel(REFERENCES, [MEASURED, *measured])


def doubt(of: ScoreModel, config: HardwareConfig) -> float:
    return float(of.draw([config], random=np.random.default_rng(0)).std())


def test_what_was_measured_is_expected_again() -> None:
    expected = model().expected(BASELINE)
    assert expected.device_util == pytest.approx(60.0)
    assert expected.quality_score == pytest.approx(0.5)
    assert expected.sps == pytest.approx(100_000.0)


def test_larger_minibatches_are_expected_to_keep_more_busy_and_to_learn_less() -> None:
    # One doubling: 0.06 of 80 % utilisation, -0.06 of quality, 2 ** 0.1 of the speed.
    expected = model().expected(LARGER)
    assert expected.device_util == pytest.approx(60.0 + 0.06 * FULL_UTIL)
    assert expected.quality_score == pytest.approx(0.5 - 0.06)
    assert expected.sps == pytest.approx(100_000.0 * 2**0.1)


def test_more_epochs_are_expected_to_learn_more_and_to_be_slower() -> None:
    expected = model().expected(MORE_EPOCHS)
    assert expected.quality_score == pytest.approx(0.5 + 0.03)
    assert expected.sps == pytest.approx(100_000.0 * 2**-0.7)


def test_a_measurement_overrules_what_was_expected_there_and_around() -> None:
    surprise = Measured(LARGER, device_util=20.0, quality_score=0.9, sps=20_000.0)
    known, beyond = model(surprise), replace(LARGER, num_minibatches=1)
    found = known.expected(LARGER)
    # A neighbour that differs so much may be noise in part: the truth is expected between the two,
    # nearer to what was measured.
    assert 20.0 < (found.device_util or 0) < (20.0 + 64.8) / 2
    assert (0.44 + 0.9) / 2 < (found.quality_score or 0) < 0.9
    assert (known.expected(beyond).quality_score or 0) > (
        model().expected(beyond).quality_score or 0
    )
    assert known.sps([beyond])[0] < model().sps([beyond])[0]


def test_doubt_is_least_where_it_was_measured_and_grows_with_the_distance() -> None:
    near, far = LARGER, HardwareConfig(512, 128, 2, 4)
    assert doubt(model(), BASELINE) < doubt(model(), near) < doubt(model(), far)
    again = model(MEASURED, MEASURED)
    assert doubt(again, BASELINE) < doubt(model(), BASELINE)


def test_draws_are_scores() -> None:
    configs = CPU_SPACE.configs()
    drawn = model().draw(configs, random=np.random.default_rng(0))
    assert drawn.shape == (len(configs), DRAWS)
    assert drawn.min() >= 0.0
    assert drawn.max() <= 1.0


def test_only_the_parts_in_use_count() -> None:
    alone = ScoreReferences(sps=100_000.0, components=("sps",))
    unjudged = replace(MEASURED, device_util=None, quality_score=None)
    drawn = ScoreModel(alone, [unjudged] * 50).draw([BASELINE], random=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(0.5, abs=0.02)


def test_a_learning_rate_matters_for_quality_alone() -> None:
    known = [
        Measured(replace(BASELINE, learning_rate=rate), 60.0, quality, 100_000.0)
        for rate, quality in ((3e-4, 0.3), (3e-3, 0.8))
    ]
    found = ScoreModel(REFERENCES, known)
    slow, quick = (found.expected(replace(LARGER, learning_rate=r)) for r in (3e-4, 3e-3))
    assert (slow.quality_score or 0) + 0.2 < (quick.quality_score or 0)
    assert slow.sps == pytest.approx(quick.sps, rel=1e-3)
