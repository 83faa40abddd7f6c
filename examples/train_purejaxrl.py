"""A script in the style of purejaxrl, which takes its numbers from a profile.

    python train_purejaxrl.py runs/cartpole/profiles/balanced.yaml 500000

What changes in a script of yours are the five lines of `config` that name the profile.
"""

import sys
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

from tuner import load_profile


class ActorCritic(nn.Module):
    """Logits and value from two small networks."""

    num_actions: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return logits [batch, actions] and values [batch]."""
        policy = nn.tanh(nn.Dense(64)(nn.tanh(nn.Dense(64)(obs))))
        value = nn.tanh(nn.Dense(64)(nn.tanh(nn.Dense(64)(obs))))
        small = nn.initializers.orthogonal(0.01)
        logits = nn.Dense(self.num_actions, kernel_init=small)(policy)
        return logits, nn.Dense(1)(value)[:, 0]


class Transition(NamedTuple):
    """One step of every environment."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array
    episode_return: jax.Array


def log_prob_of(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Return the log-probability of each action."""
    return jnp.take_along_axis(nn.log_softmax(logits), action[:, None], axis=1)[:, 0]


def make_train(config: dict[str, Any]) -> Any:
    """Return `train(key) -> mean returns [updates]`, to be compiled whole."""
    env, env_params = gymnax.make(config["ENV_NAME"])
    batch_size = config["NUM_ENVS"] * config["NUM_STEPS"]
    network = ActorCritic(env.action_space(env_params).n)
    reset = jax.vmap(env.reset, in_axes=(0, None))
    step = jax.vmap(env.step, in_axes=(0, 0, 0, None))

    def env_step(runner: Any, key: jax.Array) -> Any:
        state, env_state, obs, total = runner
        action_key, step_key = jax.random.split(key)
        logits, value = network.apply(state.params, obs)
        action = jax.random.categorical(action_key, logits)
        keys = jax.random.split(step_key, config["NUM_ENVS"])
        after, env_state, reward, terminated, truncated, _ = step(
            keys, env_state, action, env_params
        )
        done, total = terminated | truncated, total + reward
        log_prob = log_prob_of(logits, action)
        seen = Transition(obs, action, log_prob, value, reward, done, total)
        return (state, env_state, after, jnp.where(done, 0.0, total)), seen

    def advantages_of(seen: Transition, last_value: jax.Array) -> jax.Array:
        def back(carry: Any, t: Transition) -> Any:
            advantage, next_value = carry
            error = t.reward + config["GAMMA"] * next_value * (1 - t.done) - t.value
            advantage = error + config["GAMMA"] * config["GAE_LAMBDA"] * (1 - t.done) * advantage
            return (advantage, t.value), advantage

        start = (jnp.zeros_like(last_value), last_value)
        return jax.lax.scan(back, start, seen, reverse=True)[1]

    def loss_fn(params: Any, rows: Any) -> jax.Array:
        seen, advantage, target = rows
        logits, value = network.apply(params, seen.obs)
        ratio = jnp.exp(log_prob_of(logits, seen.action) - seen.log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - config["CLIP_EPS"], 1 + config["CLIP_EPS"])
        policy_loss = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        entropy = -(nn.softmax(logits) * nn.log_softmax(logits)).sum(axis=1).mean()
        value_loss = 0.5 * jnp.square(value - target).mean()
        return policy_loss + config["VF_COEF"] * value_loss - config["ENT_COEF"] * entropy

    def update(runner: Any, key: jax.Array) -> Any:
        collect_key, epochs_key = jax.random.split(key)
        runner, seen = jax.lax.scan(
            env_step, runner, jax.random.split(collect_key, config["NUM_STEPS"])
        )
        state, env_state, obs, total = runner
        advantages = advantages_of(seen, network.apply(state.params, obs)[1])
        batch = (seen, advantages, advantages + seen.value)
        batch = jax.tree.map(lambda x: x.reshape(batch_size, *x.shape[2:]), batch)

        def minibatch(state: TrainState, rows: jax.Array) -> Any:
            grads = jax.grad(loss_fn)(state.params, jax.tree.map(lambda x: x[rows], batch))
            return state.apply_gradients(grads=grads), None

        def epoch(state: TrainState, epoch_key: jax.Array) -> Any:
            order = jax.random.permutation(epoch_key, batch_size)
            return jax.lax.scan(minibatch, state, order.reshape(config["NUM_MINIBATCHES"], -1))

        state, _ = jax.lax.scan(epoch, state, jax.random.split(epochs_key, config["UPDATE_EPOCHS"]))
        mean_return = (seen.episode_return * seen.done).sum() / seen.done.sum()
        return (state, env_state, obs, total), mean_return

    def train(key: jax.Array) -> jax.Array:
        init_key, reset_key, updates_key = jax.random.split(key, 3)
        obs, env_state = reset(jax.random.split(reset_key, config["NUM_ENVS"]), env_params)
        adam = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config["LR"]))
        params = network.init(init_key, obs)
        state = TrainState.create(apply_fn=network.apply, params=params, tx=adam)
        keys = jax.random.split(updates_key, config["TOTAL_TIMESTEPS"] // batch_size)
        start = (state, env_state, obs, jnp.zeros(config["NUM_ENVS"]))
        return jax.lax.scan(update, start, keys)[1]

    return train


def main(path: str, total_steps: int) -> None:
    """Train, and print the mean return at the end."""
    profile = load_profile(path)
    config = {
        "ENV_NAME": "CartPole-v1",
        "LR": profile.learning_rate,
        "NUM_ENVS": profile.num_envs,
        "NUM_STEPS": profile.num_steps,
        "NUM_MINIBATCHES": profile.num_minibatches,
        "UPDATE_EPOCHS": profile.num_epochs,
        "TOTAL_TIMESTEPS": total_steps,
        "GAMMA": 0.99,
        "GAE_LAMBDA": 0.95,
        "CLIP_EPS": 0.2,
        "ENT_COEF": 0.01,
        "VF_COEF": 0.5,
    }
    returns = jax.jit(make_train(config))(jax.random.key(0))
    print(f"mean return {jnp.nanmean(returns[-10:]):.1f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
