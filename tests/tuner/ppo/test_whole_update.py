"""Whole updates, collected and learned from with every option on, against NumPy.

`test_against_reference.py` holds learning to a reference on batches that are made up; here the
batch is what the update itself makes of its rollout: normalised observations and rewards, values,
bootstraps and advantages, all computed once more from what was seen and earned.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from envs.base import Timestep
from tests.tuner.ppo.probes import Probe, ProbeParams, ProbeState
from tests.tuner.ppo.reference import Network, Reference, Rows, forward
from tests.tuner.ppo.test_against_reference import float64, network_of
from tuner.ppo.chance import draw
from tuner.ppo.rollout import collect_rollout
from tuner.ppo.shuffle import shuffle
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, PPOConfig

CONFIG = PPOConfig(
    num_envs=4,
    num_steps=8,
    num_minibatches=2,
    num_epochs=2,
    network=(6, 5),
    lr_schedule="linear",
    normalize_obs=True,
    normalize_reward=True,
    clip_value_loss=True,
)
HYPERPARAMS = Hyperparams(learning_rate=3e-2, ent_coef=0.05, lr_anneal_env_steps=160.0)
ENV_PARAMS = ProbeParams(constant=0.5, by_match=3.0, by_sign=1.0, length=3, has_sign=True)
NUM_UPDATES = 3


@dataclass(frozen=True, slots=True)
class CutProbe(Probe):
    """Episodes of three steps: a time limit cuts those of a positive sign, the others terminate.

    Every observation is far from mean 0 and deviation 1, so that to see it raw is another thing.
    """

    def step(
        self, key: PRNGKeyArray, state: ProbeState, action: Int[Array, ""], params: ProbeParams
    ) -> Timestep:
        timestep = Probe.step(self, key, state, action, params)
        is_last, is_cut = timestep.terminated, state.sign > 0
        return timestep._replace(terminated=is_last & ~is_cut, truncated=is_last & is_cut)

    def _observe(self, state: ProbeState) -> Array:
        return 5.0 * Probe._observe(self, state) + jnp.array([2.0, -3.0])


def one_clock_later(obs: Any) -> Any:
    """Return what is observed after a step that no reset follows."""
    return obs + np.array([0.0, 5.0])


@dataclass
class SlowUpdate:
    """What is known after some updates, of raw observations and rewards, in float64."""

    learner: Reference
    obs: list[Any]
    returns: list[Any]
    discounted: Any

    def seen(self, obs: Any) -> Any:
        """Return observations as networks see them: by the statistics of before this update."""
        if not self.obs:
            return np.clip(obs, -10, 10)
        past = np.concatenate(self.obs)
        scaled = (obs - past.mean(axis=0)) / np.sqrt(past.var(axis=0) + 1e-8)
        return np.clip(scaled, -10, 10)

    def values(self, obs: Any) -> Any:
        """Return the value of every observation of `[T, B, O]` or `[B, O]`."""
        rows = self.seen(obs).reshape(-1, obs.shape[-1])
        return np.array([forward(self.learner.value, row)[0][0] for row in rows]).reshape(
            obs.shape[:-1]
        )

    def scaled(self, reward: Any, done: Any) -> Any:
        """Return rewards over the deviation of all discounted returns so far, these among them."""
        for step_reward, step_done in zip(reward, done, strict=True):
            self.discounted = HYPERPARAMS.gamma * self.discounted + step_reward
            self.returns.append(self.discounted)
            self.discounted = np.where(step_done, 0.0, self.discounted)
        return reward / np.sqrt(np.concatenate(self.returns).var() + 1e-8)

    def batch(self, raw: Any, last_obs: Any) -> Rows:
        """Return what one update learns from."""
        obs, done = float64(raw.obs), np.array(raw.done)
        is_cut = done & (obs[:, :, 0] > 0)
        values, final = self.values(obs), self.values(one_clock_later(obs)) * is_cut
        reward = self.scaled(float64(raw.reward), done)
        after = self.values(float64(last_obs))
        advantages, advantage = np.zeros_like(values), np.zeros(CONFIG.num_envs)
        for t in reversed(range(CONFIG.num_steps)):
            ahead = np.where(done[t], final[t], after)
            delta = reward[t] + HYPERPARAMS.gamma * ahead - values[t]
            decay = HYPERPARAMS.gamma * HYPERPARAMS.gae_lambda * ~done[t]
            advantages[t] = advantage = delta + decay * advantage
            after = values[t]
        return Rows(
            obs=self.seen(obs).reshape(-1, 2),
            action=np.array(raw.action).ravel(),
            log_prob=float64(raw.log_prob).ravel(),
            advantage=advantages.ravel(),
            target=(advantages + values).ravel(),
            value=values.ravel(),
        )

    def learn(self, rows: Rows, epoch_keys: Any, env_steps: int) -> None:
        """Take the gradient steps of one update, at the mean rate of its env-steps."""
        steps = env_steps + np.arange(CONFIG.batch_size) + 0.5
        remaining = np.maximum(0.0, 1 - steps / float(HYPERPARAMS.lr_anneal_env_steps)).mean()
        self.learner.scalars["learning_rate"] = float(HYPERPARAMS.learning_rate) * remaining
        for epoch_key in epoch_keys:
            order = np.asarray(shuffle(epoch_key, CONFIG.batch_size))
            for indices in np.split(order, CONFIG.num_minibatches):
                self.learner.step(rows, indices)


def test_updates_from_the_first_on_are_what_numpy_says() -> None:
    env = CutProbe()
    ppo = make_ppo(CONFIG, env)
    update = jax.jit(ppo.update_fn)
    collect = jax.jit(
        lambda carry: collect_rollout(
            carry, draw(carry.key, env.action_space, CONFIG), env=env, config=CONFIG
        )
    )
    carry = ppo.init_fn(jax.random.key(3), HYPERPARAMS, ENV_PARAMS.as_arrays())

    def copied(network: Any) -> Network:
        return [(kernel.copy(), bias.copy()) for kernel, bias in network_of(network)]

    slow = SlowUpdate(
        learner=Reference(
            policy=copied(carry.params.policy),
            value=copied(carry.params.value),
            log_std=None,
            scalars={name: float(value) for name, value in HYPERPARAMS._asdict().items()},
        ),
        obs=[],
        returns=[],
        discounted=np.zeros(CONFIG.num_envs),
    )
    ended, cut, moved = 0, 0, False
    for number in range(NUM_UPDATES):
        envs, raw, _ = collect(carry)
        ended += int(raw.done.sum())
        cut += int((raw.final_value != 0).sum())
        rows = slow.batch(raw, envs.obs)
        chance = draw(carry.key, env.action_space, CONFIG)
        slow.learn(rows, chance.epoch_keys, number * CONFIG.batch_size)
        slow.obs.append(float64(raw.obs).reshape(-1, 2))

        before, key = carry.params, jax.random.key_data(carry.key)
        carry, _ = update(carry)
        for theirs, ours, old in zip(
            slow.learner.parameters(),
            jax.tree.leaves(carry.params),
            jax.tree.leaves(before),
            strict=True,
        ):
            assert np.allclose(theirs, ours, rtol=0, atol=2e-5)
            moved |= bool(np.abs(np.asarray(ours) - np.asarray(old)).max() > 1e-2)
        everything = np.concatenate(slow.obs)
        assert np.allclose(carry.obs_stats.mean, everything.mean(axis=0), atol=1e-5)
        assert np.allclose(carry.obs_stats.variance, everything.var(axis=0), rtol=1e-5)
        returns = np.concatenate(slow.returns)
        assert np.allclose(carry.return_stats.stats.mean, returns.mean(), rtol=1e-5)
        assert np.allclose(carry.return_stats.stats.variance, returns.var(), rtol=1e-5)
        assert not np.array_equal(key, jax.random.key_data(carry.key))
    assert moved
    assert 0 < cut < ended


def test_two_updates_draw_other_actions_and_other_starts() -> None:
    env, config = CutProbe(), replace(CONFIG, num_steps=32)
    ppo = make_ppo(config, env)
    hyperparams = HYPERPARAMS._replace(learning_rate=0.0)
    carry = ppo.init_fn(jax.random.key(3), hyperparams, ENV_PARAMS.as_arrays())
    seen = []
    for _ in range(2):
        chance = draw(carry.key, env.action_space, config)
        _, raw, _ = collect_rollout(carry, chance, env=env, config=config)
        seen.append(raw)
        carry, _ = jax.jit(ppo.update_fn)(carry)
    assert not np.array_equal(seen[0].action, seen[1].action)
    assert not np.array_equal(seen[0].obs, seen[1].obs)
