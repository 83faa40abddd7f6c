"""Train rejax's PPO on CartPole with a profile.

    python train_rejax.py runs/cartpole/profiles/balanced.yaml 500000

Needs rejax. All four numbers and the learning rate are the profile's, the budget is yours.
"""

import sys
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import rejax

from tuner import load_profile


class FiveValues:
    """gymnax 1.0 for rejax, which was written for gymnax 0.x, whose `step` returned five values."""

    def __init__(self, env: Any) -> None:
        self.env = env

    def __getattr__(self, name: str) -> Any:
        if name == "env" or name.startswith("__"):  # copies ask before there is an environment
            raise AttributeError(name)
        return getattr(self.env, name)

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> Any:
        """Take one step; an ending of either kind is `done`."""
        obs, state, reward, terminated, truncated, _ = self.env.step(key, state, action, params)
        return obs, state, reward, jnp.logical_or(terminated, truncated), {}


def main(path: str, total_steps: int) -> None:
    """Train, and print the mean return of the last evaluation."""
    profile = load_profile(path)
    env, env_params = gymnax.make("CartPole-v1")
    ppo = rejax.PPO.create(
        env=FiveValues(env),
        env_params=env_params,
        num_envs=profile.num_envs,
        num_steps=profile.num_steps,
        num_minibatches=profile.num_minibatches,
        num_epochs=profile.num_epochs,
        learning_rate=profile.learning_rate,
        total_timesteps=total_steps,
        eval_freq=total_steps,
        skip_initial_evaluation=True,
    )
    _, (_, returns) = jax.jit(ppo.train)(jax.random.PRNGKey(0))
    print(f"mean return {returns[-1].mean():.1f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
