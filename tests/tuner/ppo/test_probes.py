"""What PPO learns on probe environments, against values derived by hand."""

import jax
import jax.numpy as jnp
import pytest

from tests.tuner.ppo.probes import Probe, ProbeParams
from tuner.ppo.networks import logits_of, value_of
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, Params, PPOConfig

CONFIG = PPOConfig(num_envs=32, num_steps=8, num_minibatches=2, num_epochs=4, network=(16,))
HYPERPARAMS = Hyperparams(learning_rate=5e-3, gamma=0.5)
NUM_UPDATES = 150
PLUS, MINUS, START, SECOND, THIRD = [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 2.0]


@jax.jit
def train(env_params: ProbeParams) -> Params:
    ppo = make_ppo(CONFIG, Probe())
    carry = ppo.init_fn(jax.random.key(0), HYPERPARAMS, env_params)
    return jax.lax.fori_loop(0, NUM_UPDATES, lambda _, c: ppo.update_fn(c)[0], carry).params


def learn(env_params: ProbeParams, *obs: list[float]) -> tuple[list[float], list[list[float]]]:
    """Train, and return the values and the action probabilities of the given observations."""
    params = train(env_params.as_arrays())
    rows = jnp.array(obs)
    probabilities = jax.nn.softmax(logits_of(params, rows, CONFIG))
    return value_of(params, rows, CONFIG).tolist(), probabilities.tolist()


def test_constant_reward_is_valued_one() -> None:
    values, _ = learn(ProbeParams(constant=1.0), START)
    assert values == pytest.approx([1], abs=0.05)


def test_value_follows_the_observation() -> None:
    values, _ = learn(ProbeParams(by_sign=1.0, has_sign=True), PLUS, MINUS)
    assert values == pytest.approx([1, -1], abs=0.1)


def test_value_is_discounted_by_one_step() -> None:
    # The reward of 1 comes with the second step: v(second) = 1, v(start) = γ·1 = 0.5.
    values, _ = learn(ProbeParams(at_end=1.0, length=2), START, SECOND)
    assert values == pytest.approx([0.5, 1], abs=0.05)


def test_the_rewarded_action_is_preferred() -> None:
    values, probabilities = learn(ProbeParams(by_action=1.0), START)
    assert probabilities[0][0] > 0.95
    assert values == pytest.approx([1], abs=0.15)


def test_the_action_depends_on_the_observation() -> None:
    _, probabilities = learn(ProbeParams(by_match=1.0, has_sign=True), PLUS, MINUS)
    assert probabilities[0][1] > 0.95
    assert probabilities[1][0] > 0.95


def test_truncation_bootstraps_from_the_last_observation() -> None:
    # Reward 1 a step; every episode is cut after two steps, but the task goes on. The observation
    # after the cut is never acted on, so its value is whatever the network extrapolates to, and
    # v(second) = 1 + γ·v(third), v(start) = 1 + γ·v(second) must hold among the learned values.
    # Had it terminated, v(second) would be 1 and v(start) 1.5.
    cut = ProbeParams(constant=1.0, length=2, truncates=True)
    (start, second, third), _ = learn(cut, START, SECOND, THIRD)
    assert second == pytest.approx(1 + 0.5 * third, abs=0.05)
    assert start == pytest.approx(1 + 0.5 * second, abs=0.05)
    assert second > 1.2

    values, _ = learn(ProbeParams(constant=1.0, length=2), START, SECOND)
    assert values == pytest.approx([1.5, 1], abs=0.05)


def test_one_program_served_every_probe() -> None:
    train(ProbeParams(constant=1.0).as_arrays())
    assert train._cache_size() == 1
