"""brax's PPO as one of the peers: its own `train`, paused between two of its epochs.

brax has no function for one update: `train` builds everything and runs to its end. It therefore
runs in a thread of its own, whose progress callback waits until the next round is wanted.

It also knows continuous actions only. CartPole is given to it with one real action whose sign
chooses the direction, so that its policy head has two outputs (mean and deviation) as ours has two
logits: the same network and the same arithmetic up to the distribution.
"""

import functools
import threading
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
from brax.envs.base import State
from brax.training.agents.ppo import networks, train
from peer import PeerConfig

from envs.base import strongly_typed

COMPILED_TWICE = 2
"""Its second epoch compiles again, because the first returns its state laid out anew."""
FOREVER = 100_000


class GymnaxForBrax:
    """A gymnax environment with two discrete actions, in the shape of a brax environment."""

    action_size = 1
    backend = "gymnax"

    def __init__(self, name: str) -> None:
        """Make the environment.

        Raises:
            ValueError: It has not exactly two actions.
        """
        self._env, self._params = gymnax.make(name)
        if getattr(self._env.action_space(self._params), "n", None) != 2:
            raise ValueError(f"brax's PPO needs two actions, but got {name}; leave brax out")
        self.observation_size = int(self._env.observation_space(self._params).shape[0])
        self.episode_length = int(self._params.max_steps_in_episode)

    @property
    def unwrapped(self) -> "GymnaxForBrax":
        """What brax's wrappers end at."""
        return self

    def reset(self, rng: jax.Array) -> Any:
        """Start an episode."""
        key, reset_key = jax.random.split(rng)
        obs, state = self._env.reset_env(reset_key, self._params)
        zero = jnp.zeros((), jnp.float32)
        return State(strongly_typed(state), obs, zero, zero, {}, {"key": key})

    def step(self, state: Any, action: jax.Array) -> Any:
        """Take one step; brax's own wrapper resets and keeps the time limit."""
        key, step_key = jax.random.split(state.info["key"])
        obs, inner, reward, terminated, _ = self._env.step_env(
            step_key, state.pipeline_state, (action[0] > 0).astype(jnp.int32), self._params
        )
        return state.replace(
            pipeline_state=strongly_typed(inner),
            obs=obs,
            reward=jnp.asarray(reward, jnp.float32),
            done=jnp.asarray(terminated, jnp.float32),
            info=state.info | {"key": key},
        )


class Brax:
    """`brax.training.agents.ppo.train`, one of its epochs a round."""

    def __init__(self, config: PeerConfig) -> None:
        """Take over what to train."""
        self._config = config
        self._wanted = threading.Semaphore(0)
        self._done = threading.Semaphore(0)
        self._error: BaseException | None = None

    def compile(self) -> int:
        """Train until the program that `run` repeats is compiled; return the env-steps of that."""
        if not hasattr(jax, "device_put_replicated"):
            setattr(jax, "device_put_replicated", _device_put_replicated)  # noqa: B010
        threading.Thread(target=self._train, daemon=True).start()
        for _ in range(COMPILED_TWICE):
            self.run()
        return COMPILED_TWICE * self._config.env_steps

    def run(self) -> int:
        """Let it train for one epoch."""
        self._wanted.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._config.env_steps

    def _train(self) -> None:
        self._wanted.acquire()
        try:
            self._call_train()
        except BaseException as error:  # handed to the thread that waits for the round
            self._error = error
        self._done.release()

    def _call_train(self) -> None:
        config = self._config
        env = GymnaxForBrax(config.env)
        train.train(
            env,
            num_timesteps=FOREVER * config.env_steps,
            num_evals=FOREVER + 1,
            run_evals=False,
            num_eval_envs=1,
            progress_fn=self._pause,
            episode_length=env.episode_length,
            num_envs=config.num_envs,
            unroll_length=config.num_steps,
            num_minibatches=config.num_minibatches,
            batch_size=config.num_envs // config.num_minibatches,
            num_updates_per_batch=config.num_epochs,
            learning_rate=config.hyperparams["learning_rate"],
            discounting=config.hyperparams["gamma"],
            gae_lambda=config.hyperparams["gae_lambda"],
            clipping_epsilon=config.hyperparams["clip_eps"],
            entropy_cost=config.hyperparams["ent_coef"],
            vf_loss_coefficient=config.hyperparams["vf_coef"],
            max_grad_norm=config.hyperparams["max_grad_norm"],
            seed=config.seed,
            network_factory=functools.partial(
                networks.make_ppo_networks,
                policy_hidden_layer_sizes=config.network,
                value_hidden_layer_sizes=config.network,
                activation={"tanh": jnp.tanh, "relu": jax.nn.relu}[config.activation],
            ),
        )

    def _pause(self, *_: Any) -> None:
        self._done.release()
        self._wanted.acquire()


def _device_put_replicated(tree: Any, devices: list[Any]) -> Any:
    """Stand in for the function of this name that jax 0.10 removed and brax 0.14 still calls."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * len(devices)), tree)
