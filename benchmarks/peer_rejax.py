"""rejax's PPO as one of the peers: its own `train_iteration`, in a loop inside one program.

As in rejax's `train`, hyperparameters are constants of the program. Its evaluations are left out.
"""

from typing import Any

import jax
import rejax
from gymnax_five_values import make_five_values
from peer import PeerConfig


def make_rejax(config: PeerConfig) -> Any:
    """Return rejax's PPO with the numbers of `config`."""
    env, env_params = make_five_values(config.env)
    return rejax.PPO.create(
        env=env,
        env_params=env_params,
        agent_kwargs={
            "hidden_layer_sizes": config.network,
            "activation": config.activation,
        },
        skip_initial_evaluation=True,
        **config.sizes,
        **config.hyperparams,
    )


class Rejax:
    """`rejax.PPO`, with a donated state."""

    def __init__(self, config: PeerConfig) -> None:
        """Take over what to train."""
        self._config = config

    def compile(self) -> None:
        """Compile the start and the loop, and make the first state."""
        ppo = make_rejax(self._config)
        self._state = jax.jit(ppo.init_state)(jax.random.PRNGKey(self._config.seed))

        def train(state: Any) -> Any:
            return jax.lax.fori_loop(
                0, self._config.updates, lambda _, state: ppo.train_iteration(state), state
            )

        self._train = jax.jit(train, donate_argnums=0).lower(self._state).compile()

    def run(self) -> int:
        """Run one loop."""
        self._state = jax.block_until_ready(self._train(self._state))
        return self._config.env_steps
