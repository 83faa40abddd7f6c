"""A trainer of your own: a small PPO for discrete actions, in JAX and optax.

`--trainer my_trainer:make_trainer` measures its hardware settings instead of those of tuner's PPO.
The contract is at `make_trainer`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

HIDDEN, GAMMA, LAMBDA, CLIP = 64, 0.99, 0.95, 0.2
LEARNING_RATE, ENT_COEF, VF_COEF = 1e-3, 0.01, 0.5


class Carry(NamedTuple):
    """All that one update hands to the next; what trains must be called `params`."""

    params: Any
    opt_state: Any
    state: Any
    obs: jax.Array
    episode_return: jax.Array
    key: jax.Array


class Sample(NamedTuple):
    """One step of every environment; the whole rollout has leading axes [num_steps, num_envs]."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    next_value: jax.Array
    finished_return: jax.Array


def init_network(key: jax.Array, sizes: tuple[int, ...]) -> list[tuple[jax.Array, jax.Array]]:
    """Return a (weight, bias) for each layer."""
    keys = jax.random.split(key, len(sizes) - 1)
    weights = jax.nn.initializers.orthogonal()
    return [
        (weights(k, (n, m), jnp.float32), jnp.zeros((m,), jnp.float32))
        for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def apply_network(network: Any, x: jax.Array) -> Any:
    """Return the outputs [batch, sizes[-1]]."""
    x = x.reshape(x.shape[0], -1).astype(jnp.float32)
    for weight, bias in network[:-1]:
        x = jnp.tanh(x @ weight + bias[None, :])
    weight, bias = network[-1]
    return x @ weight + bias[None, :]


def log_probs_and_value(params: Any, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return log-probabilities [batch, actions] and values [batch]."""
    logits = apply_network(params["policy"], obs)
    return jax.nn.log_softmax(logits), apply_network(params["value"], obs)[:, 0]


def chosen(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """Return the log-probability of each action, [batch]."""
    return jnp.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]


def make_trainer(hardware: Any, env: Any, env_params: Any, seed: int) -> Any:
    """Return `init_fn(key) -> carry` and `update_fn(carry) -> (carry, metrics)`, both pure.

    `hardware` has num_envs, num_steps, num_minibatches and num_epochs. `env` has
    `reset(key, params) -> (obs, state)` and `step(key, state, action, params)`, which returns obs,
    state, reward, terminated and truncated, and never resets: that is done here. One update trains
    on num_envs × num_steps env-steps. `metrics` holds scalars; `mean_return` is that of the
    episodes that ended, NaN where none did, or the mean reward where `env.per_step_return`.
    """
    num_envs, num_actions = hardware.num_envs, env.action_space.num_actions
    batch_size = num_envs * hardware.num_steps
    num_inputs = math.prod(env.obs_shape)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(LEARNING_RATE))
    reset = jax.vmap(env.reset, in_axes=(0, None))
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def init_fn(key: jax.Array) -> Carry:
        key, policy_key, value_key, env_key = jax.random.split(jax.random.fold_in(key, seed), 4)
        params = {
            "policy": init_network(policy_key, (num_inputs, HIDDEN, HIDDEN, num_actions)),
            "value": init_network(value_key, (num_inputs, HIDDEN, HIDDEN, 1)),
        }
        obs, state = reset(jax.random.split(env_key, num_envs), env_params)
        zeros = jnp.zeros((num_envs,), jnp.float32)
        return Carry(params, optimizer.init(params), state, obs, zeros, key)

    def collect(carry: Carry, key: jax.Array) -> tuple[Carry, Sample]:
        action_key, step_key, reset_key = jax.random.split(key, 3)
        log_probs, value = log_probs_and_value(carry.params, carry.obs)
        action = jax.random.categorical(action_key, log_probs)
        after = step(jax.random.split(step_key, num_envs), carry.state, action, env_params)
        done = after.terminated | after.truncated
        episode_return = carry.episode_return + after.reward
        next_value = log_probs_and_value(carry.params, after.obs)[1]
        sample = Sample(
            obs=carry.obs,
            action=action,
            log_prob=chosen(log_probs, action),
            value=value,
            reward=after.reward,
            done=done,
            # A time limit is not the end of the task: the last observation has a value still.
            next_value=jnp.where(after.terminated, 0.0, next_value),
            finished_return=jnp.where(done, episode_return, 0.0),
        )

        def fresh(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(done.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        obs, state = reset(jax.random.split(reset_key, num_envs), env_params)
        obs, state = jax.tree.map(fresh, (obs, state), (after.obs, after.state))
        episode_return = jnp.where(done, 0.0, episode_return)
        return carry._replace(obs=obs, state=state, episode_return=episode_return), sample

    def advantages_of(samples: Sample) -> jax.Array:
        def back(following: jax.Array, sample: Sample) -> tuple[jax.Array, jax.Array]:
            error = sample.reward + GAMMA * sample.next_value - sample.value
            advantage = error + GAMMA * LAMBDA * jnp.where(sample.done, 0.0, following)
            return advantage, advantage

        return jax.lax.scan(back, jnp.zeros((num_envs,)), samples, reverse=True)[1]

    def loss_fn(params: Any, batch: tuple[Sample, jax.Array, jax.Array]) -> Any:
        sample, advantage, target = batch
        log_probs, value = log_probs_and_value(params, sample.obs)
        log_ratio = chosen(log_probs, sample.action) - sample.log_prob
        ratio = jnp.exp(log_ratio)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        value_loss = 0.5 * jnp.square(value - target).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=1).mean()
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": (ratio - 1 - log_ratio).mean(),
        }
        return policy_loss + VF_COEF * value_loss - ENT_COEF * entropy, metrics

    def update_fn(carry: Carry) -> tuple[Carry, dict[str, jax.Array]]:
        key, collect_key, shuffle_key = jax.random.split(carry.key, 3)
        carry, samples = jax.lax.scan(
            collect, carry, jax.random.split(collect_key, hardware.num_steps)
        )
        advantages = advantages_of(samples)
        targets = advantages + samples.value
        batch = jax.tree.map(
            lambda x: x.reshape(batch_size, *x.shape[2:]), (samples, advantages, targets)
        )

        def minibatch(learner: Any, rows: jax.Array) -> Any:
            params, opt_state = learner
            part = jax.tree.map(lambda x: x[rows], batch)
            grads, metrics = jax.grad(loss_fn, has_aux=True)(params, part)
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), metrics

        def epoch(learner: Any, epoch_key: jax.Array) -> Any:
            order = jax.random.permutation(epoch_key, batch_size)
            return jax.lax.scan(minibatch, learner, order.reshape(hardware.num_minibatches, -1))

        (params, opt_state), metrics = jax.lax.scan(
            epoch,
            (carry.params, carry.opt_state),
            jax.random.split(shuffle_key, hardware.num_epochs),
        )
        metrics = jax.tree.map(jnp.mean, metrics)
        finished = samples.finished_return.sum() / samples.done.sum()
        metrics["mean_return"] = samples.reward.mean() if env.per_step_return else finished
        metrics["explained_variance"] = 1 - (targets - samples.value).var() / targets.var()
        return carry._replace(params=params, opt_state=opt_state, key=key), metrics

    return init_fn, update_fn
