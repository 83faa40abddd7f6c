"""The models behind the structured sampler, on numbers whose answer is known."""

import numpy as np
import pytest

from tests.benchmarks.made_up_grid import update_s
from tuner.search.model import SmoothModel, SpeedModel, coordinates, expected_improvement
from tuner.space import CPU_SPACE, HardwareConfig


def test_five_measurements_tell_the_speed_of_all_configs() -> None:
    configs = CPU_SPACE.configs()
    measured = [configs[i] for i in (0, 40, 85, 120, 167)]
    model = SpeedModel.fit(measured, [c.batch_size / update_s(c) for c in measured])
    for config in configs:
        assert model.sps(config) == pytest.approx(config.batch_size / update_s(config), rel=0.05)


def test_two_measurements_give_something_positive() -> None:
    measured = [HardwareConfig(8, 16, 2, 2), HardwareConfig(512, 128, 8, 4)]
    model = SpeedModel.fit(measured, [1e4, 2e5])
    assert all(0 < model.sps(config) < 1e9 for config in CPU_SPACE.configs())


def test_a_smooth_function_is_predicted_between_its_points_with_less_doubt_than_beyond() -> None:
    x = np.linspace(-2, 2, 12)[:, None]
    model = SmoothModel(x, np.zeros((12, 0)), np.sin(x[:, 0]))
    mean, deviation = model.predict(np.array([[0.3], [4.0]]), np.zeros((2, 0)))
    assert mean[0] == pytest.approx(np.sin(0.3), abs=0.05)
    assert deviation[0] < deviation[1]


def test_a_trend_is_followed_beyond_the_points() -> None:
    x = np.linspace(0, 1, 8)[:, None]
    model = SmoothModel(np.zeros((8, 1)), x, 3 * x[:, 0])
    mean, _ = model.predict(np.zeros((1, 1)), np.array([[2.0]]))
    assert mean[0] > 3.0


def test_expected_improvement_grows_with_mean_and_with_doubt() -> None:
    gain = expected_improvement(np.array([0.0, 1.0, 0.0]), np.array([0.1, 0.1, 1.0]), 0.5)
    assert gain[0] < gain[1]
    assert gain[0] < gain[2]


def test_coordinates_tell_all_configs_apart() -> None:
    configs = CPU_SPACE.configs()
    assert len({coordinates(config) for config in configs}) == len(configs)
