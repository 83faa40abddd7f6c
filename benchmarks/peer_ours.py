"""Our PPO as one of the peers: the block of updates that a trial of a study runs."""

from typing import Any

import jax
import jax.numpy as jnp
from peer import PeerConfig

# The registry imports this on demand, and imports are no part of compiling.
import envs.gymnax_adapter  # noqa: F401
from envs.registry import make
from tuner.child.program import block_fn, compile_start
from tuner.ppo.train import make_ppo
from tuner.ppo.types import Hyperparams, PPOConfig


def ppo_config(config: PeerConfig) -> PPOConfig:
    """Return what fixes our program; ValueError where ours has no such activation."""
    activation: Any = config.activation
    return PPOConfig(
        num_envs=config.num_envs,
        num_steps=config.num_steps,
        num_minibatches=config.num_minibatches,
        num_epochs=config.num_epochs,
        network=config.network,
        activation=activation,
    )


class Ours:
    """`tuner.ppo`, with donated carries."""

    def __init__(self, config: PeerConfig) -> None:
        """Take over what to train."""
        self._config = config
        self._num_updates = jnp.int32(config.updates)

    def compile(self) -> None:
        """Compile the start and the block, and make the first carry."""
        config = self._config
        env, env_params = make(f"gymnax:{config.env}", {})
        ppo = make_ppo(ppo_config(config), env)
        hyperparams = Hyperparams(**config.hyperparams)
        key = jax.random.key(config.seed)
        init = compile_start(jax.jit(lambda k: ppo.init_fn(k, hyperparams, env_params)).lower(key))
        self._carry = init(key)
        block = jax.jit(block_fn(ppo.update_fn), donate_argnums=0)
        self._block = block.lower(self._carry, self._num_updates).compile()

    def run(self) -> int:
        """Run one block."""
        self._carry, sums = self._block(self._carry, self._num_updates)
        jax.block_until_ready((self._carry, sums))
        return self._config.env_steps
