"""Train brax's own PPO with a profile.

    python train_brax.py runs/ant/profiles/balanced.yaml 50000000 ant

Needs the extra `brax`. brax calls three of the numbers by other names, and collects
`batch_size × num_minibatches` rollouts an update: with `num_envs` of them, as here, an update is
what it was when it was measured.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
from brax import envs
from brax.training.agents.ppo import train as ppo

from tuner import load_profile


def main(path: str, total_steps: int, env: str) -> None:
    """Train, and print the return of every evaluation."""
    profile = load_profile(path)
    if profile.num_envs % profile.num_minibatches:
        raise SystemExit("brax needs num_envs to be a multiple of num_minibatches")
    # The learning rate was measured with these; brax's own defaults are others.
    measured_with = profile.workload.get("ppo") or {}
    ppo.train(
        envs.get_environment(env),
        num_timesteps=total_steps,
        num_envs=profile.num_envs,
        unroll_length=profile.num_steps,
        num_minibatches=profile.num_minibatches,
        batch_size=profile.num_envs // profile.num_minibatches,
        num_updates_per_batch=profile.num_epochs,
        learning_rate=profile.learning_rate,
        normalize_observations=profile.workload.get("normalize_obs", False),
        discounting=measured_with.get("gamma", 0.99),
        gae_lambda=measured_with.get("gae_lambda", 0.95),
        clipping_epsilon=measured_with.get("clip_eps", 0.2),
        entropy_cost=measured_with.get("ent_coef", 0.01),
        num_evals=3,
        num_eval_envs=16,
        episode_length=1000,
        progress_fn=show,
    )


def show(env_steps: int, metrics: dict[str, Any]) -> None:
    """Print where training stands."""
    print(f"{env_steps:,} env-steps: return {metrics['eval/episode_reward']:.1f}")


def replicate(tree: Any, devices: list[Any]) -> Any:
    """Put a tree on every device; brax 0.14 asks jax for it, and jax 0.10 has it no longer."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * len(devices)), tree)


if __name__ == "__main__":
    if not hasattr(jax, "device_put_replicated"):
        setattr(jax, "device_put_replicated", replicate)  # noqa: B010
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
