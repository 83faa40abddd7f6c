"""Whole updates against an independent NumPy reference, on random batches."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import ActionSpace, Box, Discrete
from tests.tuner.ppo.reference import Network, Reference, Rows
from tuner.ppo.distributions import action_noise
from tuner.ppo.networks import init_params, policy_of, value_of
from tuner.ppo.shuffle import shuffle
from tuner.ppo.types import MLP, Batch, Hyperparams, Params, PPOConfig
from tuner.ppo.update import Learner, learn, optimizer

DISCRETE: ActionSpace = Discrete(4)
BOX: ActionSpace = Box((-1.0, -1.0), (1.0, 1.0), (2,))
HYPERPARAMS = Hyperparams(learning_rate=1e-3, ent_coef=0.05)
EPOCHS = 3
EPOCH_KEYS = jax.random.split(jax.random.key(7), EPOCHS)
CASES = {
    "discrete": (DISCRETE, False, False),
    "masked, clipped value": (DISCRETE, True, True),
    "Gaussian": (BOX, False, False),
    "Gaussian, clipped value": (BOX, False, True),
}


def config_of(microbatch: int, *, clip_value_loss: bool) -> PPOConfig:
    return PPOConfig(
        8, 8, 2, EPOCHS, network=(6, 5), microbatch=microbatch, clip_value_loss=clip_value_loss
    )


def random_params(space: ActionSpace, config: PPOConfig) -> Params:
    """Return parameters whose policy prefers some actions, with biases and σ off their start."""
    params = init_params(jax.random.key(0), config, obs_shape=(3,), action_space=space)
    draws = np.random.default_rng(1)
    moved: Params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(draws.normal(size=leaf.shape) * 0.3, jnp.float32), params
    )
    return moved


def random_batch(
    space: ActionSpace, params: Params, config: PPOConfig, *, masked: bool, seed: int
) -> Batch:
    """Return rows whose old policy is another, so that some ratios are clipped."""
    draws, size = np.random.default_rng(seed), config.batch_size
    obs, log_prob_noise, advantage, target, value = (
        draws.normal(size=shape).astype(np.float32) for shape in ((size, 3), size, size, size, size)
    )
    mask = None
    if masked:
        mask = jnp.asarray(draws.random((size, 4)) < 0.6).at[:, 2].set(True)
    policy = policy_of(params, jnp.asarray(obs), config, mask=mask)
    action = policy.sample(action_noise(jax.random.key(seed), space, (size,)))
    return Batch(
        obs=jnp.asarray(obs),
        action=action,
        log_prob=policy.log_prob(action) + 0.3 * log_prob_noise,
        advantage=jnp.asarray(advantage),
        target=jnp.asarray(target),
        mask=mask,
        value=jnp.asarray(value) if config.clip_value_loss else None,
    )


@partial(jax.jit, static_argnames="config")
def learned(params: Params, batch: Batch, *, config: PPOConfig) -> Params:
    hyperparams = HYPERPARAMS.as_arrays()
    learner = Learner(params, optimizer(hyperparams).init(params))
    learner, _ = learn(
        learner, batch, epoch_keys=EPOCH_KEYS, hyperparams=hyperparams, config=config
    )
    return learner.params


def float64(leaf: Any) -> Any:
    array = np.array(leaf)
    return array.astype(np.float64) if array.dtype == np.float32 else array


def network_of(mlp: MLP) -> Network:
    return [(float64(layer.kernel), float64(layer.bias)) for layer in mlp]


def slowly_learned(params: Params, batch: Batch, *, config: PPOConfig) -> Reference:
    reference = Reference(
        policy=network_of(params.policy),
        value=network_of(params.value),
        log_std=None if params.log_std is None else float64(params.log_std),
        scalars={name: float(value) for name, value in HYPERPARAMS._asdict().items()},
    )
    rows = Rows(**{name: float64(v) for name, v in batch._asdict().items() if v is not None})
    for epoch_key in EPOCH_KEYS:
        order = np.asarray(shuffle(epoch_key, config.batch_size))
        for indices in np.split(order, config.num_minibatches):
            reference.step(rows, indices)
    return reference


@pytest.mark.parametrize("case", CASES)
def test_an_update_is_what_the_reference_says(case: str) -> None:
    space, masked, clip_value_loss = CASES[case]
    config = config_of(32, clip_value_loss=clip_value_loss)
    params = random_params(space, config)
    for seed in (0, 1):
        batch = random_batch(space, params, config, masked=masked, seed=seed)
        expected = slowly_learned(params, batch, config=config).parameters()
        got = jax.tree.leaves(learned(params, batch, config=config))
        for before, theirs, ours in zip(jax.tree.leaves(params), expected, got, strict=True):
            # Six steps of Adam at 1e-3 move a parameter by up to 6e-3.
            assert np.abs(before - ours).max() > 1e-3
            assert np.allclose(theirs, ours, rtol=0, atol=3e-6)


@pytest.mark.parametrize("case", ["masked, clipped value", "Gaussian, clipped value"])
def test_cutting_a_minibatch_up_changes_nothing_that_is_learned(case: str) -> None:
    space, masked, clip_value_loss = CASES[case]
    whole, cut = (config_of(rows, clip_value_loss=clip_value_loss) for rows in (32, 8))
    params = random_params(space, whole)
    batch = random_batch(space, params, whole, masked=masked, seed=0)
    at_once, in_parts = (learned(params, batch, config=config) for config in (whole, cut))
    for one, other in zip(jax.tree.leaves(at_once), jax.tree.leaves(in_parts), strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_batches_clip_ratios_and_values(case: str) -> None:
    # Otherwise the cases above would leave both clips untried.
    space, masked, clip_value_loss = CASES[case]
    config = config_of(32, clip_value_loss=clip_value_loss)
    params = random_params(space, config)
    batch = random_batch(space, params, config, masked=masked, seed=0)
    policy = policy_of(params, batch.obs, config, mask=batch.mask)
    ratio = jnp.exp(policy.log_prob(batch.action) - batch.log_prob)
    assert 0.2 < float((jnp.abs(ratio - 1) > 0.2).mean()) < 0.8
    if batch.value is not None:
        change = value_of(params, batch.obs, config) - batch.value
        assert 0.5 < float((jnp.abs(change) > 0.2).mean()) < 1.0
