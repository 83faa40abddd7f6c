import math

import jax
import jax.numpy as jnp
import pytest

from tuner.ppo.loss import ppo_loss
from tuner.ppo.types import Batch, Hyperparams, Layer, Params, PPOConfig

CONFIG = PPOConfig(num_envs=2, num_steps=1, num_minibatches=1, num_epochs=1, network=())
PARAMS = Params(
    policy=(Layer(jnp.zeros((1, 2)), jnp.array([math.log(3.0), 0.0])),),
    value=(Layer(jnp.zeros((1, 1)), jnp.array([2.0])),),
)
"""Without hidden layers and with zero kernels: probabilities ¾ and ¼, value 2, everywhere."""

BATCH = Batch(
    obs=jnp.ones((2, 1)),
    action=jnp.array([0, 1]),
    log_prob=jnp.log(jnp.array([0.5, 0.5])),
    advantage=jnp.array([1.0, -1.0]),
    target=jnp.array([1.0, 4.0]),
)


def test_terms_by_hand() -> None:
    """Ratios are ¾ / ½ = 1.5 and ¼ / ½ = 0.5, clipped to 1.2 and 0.8.

    policy:  row 0, A = 1:  min(1.5, 1.2) = 1.2;  row 1, A = −1: min(−0.5, −0.8) = −0.8
             −(1.2 − 0.8) / 2 = −0.2
    value:   ½·((2 − 1)² + (2 − 4)²) / 2 = 1.25
    entropy: −(¾·ln ¾ + ¼·ln ¼) = 0.562335
    KL:      ((0.5 − ln 1.5) + (−0.5 − ln 0.5)) / 2 = (0.094535 + 0.193147) / 2 = 0.143841
    clipped: both rows
    loss:    −0.2 + 0.5·1.25 − 0.01·0.562335 = 0.419377
    """
    loss, metrics = ppo_loss(PARAMS, BATCH, Hyperparams(), CONFIG)
    assert float(metrics.policy_loss) == pytest.approx(-0.2, abs=1e-6)
    assert float(metrics.value_loss) == pytest.approx(1.25, abs=1e-6)
    assert float(metrics.entropy) == pytest.approx(0.562335, abs=1e-6)
    assert float(metrics.approx_kl) == pytest.approx(0.143841, abs=1e-6)
    assert float(metrics.clip_fraction) == 1.0
    assert float(loss) == pytest.approx(0.419377, abs=1e-6)


def test_a_clipped_ratio_gives_the_policy_no_gradient() -> None:
    # Both rows have moved beyond the clip in the direction their advantages ask for.
    hyperparams = Hyperparams(ent_coef=0.0)
    gradient, _ = jax.grad(ppo_loss, has_aux=True)(PARAMS, BATCH, hyperparams, CONFIG)
    assert float(jnp.abs(gradient.policy[0].bias).max()) == 0
    # Value: 0.5·½·d/dv mean((v − target)²) = 0.5·mean(v − target) = 0.5·(1 − 2) / 2 = −0.25.
    assert float(gradient.value[0].bias[0]) == pytest.approx(-0.25, abs=1e-6)


def test_coefficients_weigh_their_terms() -> None:
    plain, _ = ppo_loss(PARAMS, BATCH, Hyperparams(vf_coef=0.0, ent_coef=0.0), CONFIG)
    valued, _ = ppo_loss(PARAMS, BATCH, Hyperparams(vf_coef=2.0, ent_coef=0.0), CONFIG)
    explored, _ = ppo_loss(PARAMS, BATCH, Hyperparams(vf_coef=0.0, ent_coef=1.0), CONFIG)
    assert float(valued - plain) == pytest.approx(2.5, abs=1e-6)
    assert float(explored - plain) == pytest.approx(-0.562335, abs=1e-6)


def test_a_clipped_value_loss_takes_the_worse_error() -> None:
    """The network's value is 2 in both rows, the clip 0.2.

    Row 0: old value 1, held at 1 + 0.2 = 1.2; target 1: errors 1 and 0.04 -> 1, the gradient of 2.
    Row 1: old value 5, held at 5 − 0.2 = 4.8; target 1: errors 1 and 14.44 -> 14.44, no gradient.
    Loss ½·(1 + 14.44) / 2 = 3.86; d/dv = (2 − 1) / 2 = 0.5, times vf_coef of ½: 0.25.
    """
    batch = BATCH._replace(value=jnp.array([1.0, 5.0]), target=jnp.array([1.0, 1.0]))
    gradient, metrics = jax.grad(ppo_loss, has_aux=True)(PARAMS, batch, Hyperparams(), CONFIG)
    assert float(metrics.value_loss) == pytest.approx(3.86, abs=1e-5)
    assert float(gradient.value[0].bias[0]) == pytest.approx(0.25, abs=1e-6)


def test_entropy_of_a_masked_policy_is_over_the_allowed_actions() -> None:
    # Allowed alone, action 0 has probability 1: the ratio is 1 / ½ = 2, and no entropy is left.
    batch = BATCH._replace(action=jnp.array([0, 0]), mask=jnp.array([[True, False]] * 2))
    gradient, metrics = jax.grad(ppo_loss, has_aux=True)(PARAMS, batch, Hyperparams(), CONFIG)
    assert float(metrics.entropy) == 0
    assert float(metrics.approx_kl) == pytest.approx(1 - math.log(2), abs=1e-6)
    assert jax.tree.all(jax.tree.map(lambda leaf: bool(jnp.isfinite(leaf).all()), gradient))
    assert gradient.policy[0].bias.tolist() == [0, 0]


def test_a_gaussian_policy_by_hand() -> None:
    """Means 0 and 0, σ of 1 and 2; the action is (1, 2), one σ from the mean in both.

    log-prob = −½·(1 + 1) − ln 1 − ln 2 − ln 2π = −3.531024; entropy = ln 2 + 1 + ln 2π = 3.531024.
    An old log-prob of the same makes the ratio 1. d log-prob / d log σ = 1 − 1 = 0 for both, so
    that the entropy alone moves log σ: −ent_coef = −0.01.
    """
    policy = (Layer(jnp.zeros((1, 2)), jnp.zeros(2)),)
    params = PARAMS._replace(policy=policy, log_std=jnp.log(jnp.array([1.0, 2.0])))
    batch = BATCH._replace(action=jnp.array([[1.0, 2.0]] * 2), log_prob=jnp.full((2,), -3.531024))
    gradient, metrics = jax.grad(ppo_loss, has_aux=True)(params, batch, Hyperparams(), CONFIG)
    assert float(metrics.entropy) == pytest.approx(3.531024, abs=1e-5)
    assert float(metrics.approx_kl) == pytest.approx(0, abs=1e-6)
    assert gradient.log_std is not None
    assert gradient.log_std.tolist() == pytest.approx([-0.01, -0.01], abs=1e-6)
