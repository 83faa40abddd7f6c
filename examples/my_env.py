"""An environment of your own: gather berries on a line before the time runs out.

A walker starts somewhere on a line and steps left, stays or steps right. Reaching the bush pays 1
and ends the episode; every step costs a little, and walking off the line ends the episode too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Params(NamedTuple):
    """Numbers that may change without compiling anew; each can be set by `--env-param NAME=X`."""

    step_cost: float = 0.01
    stride: float = 0.1
    max_steps_in_episode: int = 50


class State(NamedTuple):
    """Arrays only, of the same shapes and types after every step."""

    position: jax.Array
    bush: jax.Array
    time: jax.Array


class Box(NamedTuple):
    """A space of arrays; any object with these attributes will do, gymnax's own too."""

    low: float
    high: float
    shape: tuple[int, ...]


class Discrete(NamedTuple):
    """A space of the numbers 0 to n − 1."""

    n: int


class Gather:
    """The environment; what fixes a shape or the code lives here and not in `Params`."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.default_params = Params()
        self.best_return = 1.0  # No episode pays more; without it, configs are compared only.

    def observation_space(self, params: Params) -> Box:
        """Return where observations lie; only the shape is used."""
        return Box(-2 * self.width, 2 * self.width, (2,))

    def action_space(self, params: Params) -> Discrete:
        """Return the actions: left, stay, right."""
        return Discrete(3)

    def reset(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        """Start an episode at a random place, with the bush at another."""
        position, bush = jax.random.uniform(key, (2,), minval=-self.width, maxval=self.width)
        state = State(position, bush, jnp.int32(0))
        return self.observe(state), state

    def step(
        self, key: jax.Array, state: State, action: jax.Array, params: Params
    ) -> tuple[jax.Array, State, jax.Array, jax.Array, jax.Array, dict[str, Any]]:
        """Move; never reset: whoever trains does that."""
        position = state.position + params.stride * (action - 1)
        state = State(position, state.bush, state.time + 1)
        reached = jnp.abs(position - state.bush) < params.stride
        terminated = reached | (jnp.abs(position) > self.width)
        truncated = state.time >= params.max_steps_in_episode
        reward = jnp.where(reached, 1.0, 0.0) - params.step_cost
        return self.observe(state), state, reward, terminated, truncated, {}

    def observe(self, state: State) -> jax.Array:
        """Return the walker's place and the way to the bush."""
        return jnp.stack([state.position, state.bush - state.position])


def make_env(width: float = 1.0) -> Gather:
    """The factory: `--env my_env:make_env`, and `--env-param width=2` for its argument."""
    return Gather(width)
