"""What PPO learns on probe environments, against values derived by hand."""

import jax
import jax.numpy as jnp
import pytest

from tests.tuner.ppo.probes import (
    Probe,
    action_reward,
    constant_reward,
    last_reward,
    sign_action_reward,
    sign_reward,
)
from tuner.ppo.networks import logits_of, value_of
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, PPOConfig

CONFIG = PPOConfig(num_envs=32, num_steps=8, num_minibatches=2, num_epochs=4, network=(16,))
HYPERPARAMS = Hyperparams(learning_rate=5e-3, gamma=0.5)
PLUS, MINUS, START, SECOND = [1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 1.0]


def learn(env: Probe, *obs: list[float]) -> tuple[jax.Array, jax.Array]:
    """Train, and return the values `[len(obs)]` and the action probabilities of observations."""
    ppo = make_ppo(CONFIG, env)

    @jax.jit
    def train(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = ppo.init_fn(key, HYPERPARAMS, jnp.float32(1))
        carry = jax.lax.fori_loop(0, 150, lambda _, carry: ppo.update_fn(carry)[0], carry)
        rows = jnp.array(obs)
        values = value_of(carry.params, rows, CONFIG)
        return values, jax.nn.softmax(logits_of(carry.params, rows, CONFIG))

    return train(jax.random.key(0))


def test_constant_reward_is_valued_one() -> None:
    values, _ = learn(Probe(constant_reward), START)
    assert float(values[0]) == pytest.approx(1, abs=0.05)


def test_value_follows_the_observation() -> None:
    values, _ = learn(Probe(sign_reward, has_sign=True), PLUS, MINUS)
    assert values.tolist() == pytest.approx([1, -1], abs=0.1)


def test_value_is_discounted_by_one_step() -> None:
    # The reward of 1 comes with the second step: v(second) = 1, v(start) = γ·1 = 0.5.
    values, _ = learn(Probe(last_reward, length=2), START, SECOND)
    assert values.tolist() == pytest.approx([0.5, 1], abs=0.05)


def test_the_rewarded_action_is_preferred() -> None:
    values, probabilities = learn(Probe(action_reward, num_actions=2), START)
    assert float(probabilities[0, 0]) > 0.95
    assert float(values[0]) == pytest.approx(1, abs=0.15)


def test_the_action_depends_on_the_observation() -> None:
    env = Probe(sign_action_reward, num_actions=2, has_sign=True)
    _, probabilities = learn(env, PLUS, MINUS)
    assert float(probabilities[0, 1]) > 0.95
    assert float(probabilities[1, 0]) > 0.95


def test_truncation_bootstraps_from_the_last_observation() -> None:
    # One reward of 1 a step. Every episode is cut after two steps, but the task goes on: the last
    # observation, whose clock says 2, is never acted on. With v the value of whatever lies beyond,
    # v(second) = 1 + γ·v(2) and v(start) = 1 + γ·v(second) must hold for the learned values.
    # Terminating instead would give v(second) = 1.
    values, _ = learn(Probe(constant_reward, length=2, truncates=True), START, SECOND, [0.0, 2.0])
    start, second, beyond = values.tolist()
    assert second == pytest.approx(1 + 0.5 * beyond, abs=0.05)
    assert start == pytest.approx(1 + 0.5 * second, abs=0.05)
    assert second > 1.2
