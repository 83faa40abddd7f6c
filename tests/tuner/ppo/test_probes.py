"""What PPO learns on probe environments, against values derived by hand."""

import jax
import jax.numpy as jnp
import pytest

from tests.tuner.ppo.probes import BoxProbe, MaskedProbe, Probe, ProbeParams
from tuner.ppo.networks import policy_of, value_of
from tuner.ppo.rollout import start_envs, step_envs
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Carry, Hyperparams, Metrics, Params, PPOConfig

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
    probabilities = jnp.exp(policy_of(params, rows, CONFIG).log_probs)
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


def run(env: Probe, hyperparams: Hyperparams) -> tuple[Carry, Metrics, Metrics]:
    """Train on observed signs; return the end and the metrics of the first and last update."""
    ppo = make_ppo(CONFIG, env)
    env_params = ProbeParams(constant=1.0, has_sign=True).as_arrays()
    carry = jax.jit(ppo.init_fn)(jax.random.key(0), hyperparams, env_params)
    update = jax.jit(ppo.update_fn)
    carry, first = update(carry)
    for _ in range(NUM_UPDATES):
        carry, last = update(carry)
    return carry, first, last


def test_continuous_actions_are_learned_one_by_one() -> None:
    # Best are ½·sign and −¼, and no noise: σ falls as far as its learning rate lets it.
    carry, first, last = run(BoxProbe(), HYPERPARAMS._replace(ent_coef=0.0))
    rows = jnp.array([PLUS, MINUS])
    policy = policy_of(carry.params, rows, CONFIG)
    assert policy.mean.ravel().tolist() == pytest.approx([0.5, -0.25, -0.5, -0.25], abs=0.1)
    assert float(first["sigma_share"]) == pytest.approx(1, abs=0.1)
    assert 0 < float(last["sigma_share"]) < 0.2
    # Reward 1 less the variance of both components, at most 2·0.2².
    assert value_of(carry.params, rows, CONFIG).tolist() == pytest.approx([1, 1], abs=0.15)


def test_a_forbidden_action_is_neither_taken_nor_learned() -> None:
    # The forbidden actions would earn 100: no return could then be at most 1.
    carry, first, last = run(MaskedProbe(), HYPERPARAMS)
    # Signs are equally likely: ln 2 is possible at one, 0 at the other. 256 draws: within 0.1.
    assert float(first["max_entropy"]) == pytest.approx(0.5 * 0.693147, abs=0.1)
    assert float(first["entropy"]) == pytest.approx(float(first["max_entropy"]), abs=0.02)
    assert 0 <= float(first["mean_return"]) <= float(last["mean_return"]) <= 1
    mask = jnp.array([[True, True, False, False], [False, True, False, False]])
    policy = policy_of(carry.params, jnp.array([PLUS, MINUS]), CONFIG, mask=mask)
    probabilities = jnp.exp(policy.log_probs).tolist()
    assert probabilities[0][0] > 0.95
    assert probabilities[0][2:] == [0, 0]
    assert probabilities[1] == [0, 1, 0, 0]


def test_an_evaluated_policy_takes_no_forbidden_action() -> None:
    # One that has learned nothing yet would take one in every second step.
    ppo = make_ppo(CONFIG, MaskedProbe())
    env_params = ProbeParams(length=4, has_sign=True).as_arrays()
    actor = ppo.init_fn(jax.random.key(0), HYPERPARAMS, env_params).actor
    rows, mask = jnp.zeros((512, 2)), jnp.array([[True, True, False, False]] * 512)
    taken = ppo.policy_fn(actor, jax.random.key(1), rows, mask)
    assert set(taken.tolist()) == {0, 1}


def test_actions_are_clipped_where_they_enter_the_environment() -> None:
    env = BoxProbe()
    params = ProbeParams().as_arrays()
    envs = start_envs(env, jax.random.key(0), params, num_envs=2)
    actions = jnp.array([[5.0, -5.0], [-0.25, 0.125]])
    _, timestep = step_envs(env, envs, actions, jax.random.key(1), params)
    assert timestep.obs.tolist() == [[1.0, -0.5], [-0.25, 0.125]]
