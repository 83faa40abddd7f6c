"""What an environment is to whoever trains on it: the protocol and one step's result.

Shape letters: `B` environments under `vmap`; every signature here is for one environment.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

Action: TypeAlias = Int[Array, ""] | Float[Array, "*action_shape"]
"""An int32 number of a discrete space, or a float32 array within the bounds of a box."""

EnvParams: TypeAlias = Any
"""A pytree of arrays: what may differ between two calls without compiling anew."""

EnvState: TypeAlias = Any
"""A pytree of arrays whose shapes and types are equal after `reset` and after `step`."""


@dataclass(frozen=True, slots=True)
class Discrete:
    """Actions that are numbers from 0 to `num_actions` − 1; an action has shape [].

    Raises:
        ValueError: There is no action.
    """

    num_actions: int

    def __post_init__(self) -> None:
        if self.num_actions < 1:
            raise ValueError(
                f"num_actions must be at least 1, but got {self.num_actions}; offer an action"
            )


@dataclass(frozen=True, slots=True)
class Box:
    """Actions that are arrays of real numbers of `shape`, bounded one by one.

    `low` and `high` hold one bound for every component, in row-major order.

    Raises:
        ValueError: A bound is missing, not finite or not below the other.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.low) == len(self.high) == self.num_components:
            raise ValueError(
                f"low and high must have {self.num_components} bounds each, one for every "
                f"component of shape {self.shape}, but got {len(self.low)} and {len(self.high)}; "
                "repeat a bound that they share"
            )
        if not all(
            -math.inf < low < high < math.inf for low, high in zip(self.low, self.high, strict=True)
        ):
            raise ValueError(
                f"bounds must be finite and low below high, but got {self.low} and {self.high}; "
                "choose bounds that a good policy stays within"
            )

    @property
    def num_components(self) -> int:
        """Number of real numbers in one action."""
        return math.prod(self.shape)


ActionSpace: TypeAlias = Discrete | Box


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
    """A pure-JAX environment.

    Static sizes live in the object, which is immutable; everything that may vary is in `params`.
    One of discrete actions may offer `action_mask(state, params) -> bool [num_actions]`, true where
    an action is allowed, at least one of them in every state; see `action_mask_of`.
    """

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""

    @property
    def action_space(self) -> ActionSpace:
        """The actions that `step` takes."""

    @property
    def per_step_return(self) -> bool:
        """Whether "return" means the mean reward per step rather than an episode's sum."""

    @property
    def eval_steps(self) -> int:
        """Steps of an evaluation: the time limit of an episode, if there is one."""

    def best_return(self, params: EnvParams) -> float | None:
        """Return the known optimum or the declared maximum; None where neither is known.

        `params` must be concrete, not traced.
        """

    def reset(
        self, key: PRNGKeyArray, params: EnvParams
    ) -> tuple[Shaped[Array, "*obs_shape"], EnvState]:
        """Start an episode; the key is consumed."""

    def step(
        self, key: PRNGKeyArray, state: EnvState, action: Action, params: EnvParams
    ) -> Timestep:
        """Take one step without ever resetting; the key is consumed."""

    def stagger(self, state: EnvState, fraction: Float[Array, ""]) -> EnvState:
        """Set the episode clock to `fraction` in [0, 1) of the episode.

        Returns the state unchanged where there is no clock that may be moved freely.
        """


def action_mask_of(
    env: Environment,
) -> Callable[[EnvState, EnvParams], Bool[Array, " actions"]] | None:
    """Return the function that says which actions a state allows; None where all always are."""
    action_mask: Callable[[EnvState, EnvParams], Bool[Array, " actions"]] | None = getattr(
        env, "action_mask", None
    )
    return action_mask


def strongly_typed(tree: Any) -> Any:
    """Return `tree` with every leaf an array of a fixed type.

    A Python number, or what is computed from one, has a *weak* type, which a step can turn strong:
    the program would then compile a second time for what looks like the same state.
    """
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.asarray(leaf).dtype), tree)


def is_done(timestep: Timestep) -> Bool[Array, "*batch"]:
    """Return whether the episode ended, for either reason."""
    return jnp.logical_or(timestep.terminated, timestep.truncated)
