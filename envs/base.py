"""What an environment is to whoever trains on it: the protocol and one step's result.

Shape letters: `B` environments under `vmap`; every signature here is for one environment.
"""

from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

EnvParams: TypeAlias = Any
"""A pytree of arrays: what may differ between two calls without compiling anew."""

EnvState: TypeAlias = Any
"""A pytree of arrays whose shapes and types are equal after `reset` and after `step`."""


class Timestep(NamedTuple):
    """What one step of one environment returns; under `vmap` every leaf gains a leading `B`.

    `obs: [*obs_shape]` is the observation *after* the action, the last one of the episode where it
    ended. `reward: []` is float32. `terminated: []` says that the task itself ended, so nothing
    follows; `truncated: []` that a time limit cut it, so the last observation still has a value.
    """

    obs: Array
    state: EnvState
    reward: Array
    terminated: Array
    truncated: Array


class Environment(Protocol):
    """A pure-JAX environment with discrete actions.

    Static sizes live in the object, which is immutable; everything that may vary is in `params`.
    """

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""

    @property
    def num_actions(self) -> int:
        """Number of discrete actions, numbered from 0."""

    @property
    def per_step_return(self) -> bool:
        """Whether "return" means the mean reward per step rather than an episode's sum."""

    @property
    def eval_steps(self) -> int:
        """Steps within which the first whole episode of every environment has ended."""

    def best_return(self, params: EnvParams) -> float | None:
        """Return the known optimum or the declared maximum; None where neither is known.

        `params` must be concrete, not traced.
        """

    def reset(
        self, key: PRNGKeyArray, params: EnvParams
    ) -> tuple[Shaped[Array, "*obs_shape"], EnvState]:
        """Start an episode; the key is consumed."""

    def step(
        self, key: PRNGKeyArray, state: EnvState, action: Int[Array, ""], params: EnvParams
    ) -> Timestep:
        """Take one step without ever resetting; the key is consumed."""

    def stagger(self, state: EnvState, fraction: Float[Array, ""]) -> EnvState:
        """Set the episode clock to `fraction` in [0, 1) of the episode.

        Returns the state unchanged where there is no clock that may be moved freely.
        """


def strongly_typed(tree: Any) -> Any:
    """Return `tree` with every leaf an array of a fixed type.

    A Python number, or what is computed from one, has a *weak* type, which a step can turn strong:
    the program would then compile a second time for what looks like the same state.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.asarray(leaf).dtype), tree)


def is_done(timestep: Timestep) -> Bool[Array, "*batch"]:
    """Return whether the episode ended, for either reason."""
    return jnp.logical_or(timestep.terminated, timestep.truncated)
