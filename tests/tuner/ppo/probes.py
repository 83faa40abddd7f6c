"""Probe environments: problems so small that what must be learned can be derived by hand.

After the probes of rejax and of "Debugging RL" (A. Jones): each isolates one part of the learner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from envs.base import Timestep


class ProbeState(NamedTuple):
    """`sign: []` is ±1 (or 0), `clock: []` the steps since the reset."""

    sign: Array
    clock: Array


@dataclass(frozen=True, slots=True)
class Probe:
    """Episodes of `length` steps; the observation is `[sign, clock]`, the reward a function of
    sign, action and whether this is the last step."""

    reward_fn: Callable[[Array, Array, Array], Array]
    num_actions: int = 1
    length: int = 1
    has_sign: bool = False
    truncates: bool = False
    per_step_return: bool = False

    obs_shape: ClassVar[tuple[int, ...]] = (2,)

    @property
    def eval_steps(self) -> int:
        return self.length

    def best_return(self, params: Array) -> float | None:
        return None

    def reset(self, key: PRNGKeyArray, params: Array) -> tuple[Float[Array, " 2"], ProbeState]:
        sign = jax.random.rademacher(key, (), jnp.float32) * self.has_sign
        state = ProbeState(sign, jnp.zeros((), jnp.int32))
        return self._observe(state), state

    def step(
        self, key: PRNGKeyArray, state: ProbeState, action: Int[Array, ""], params: Array
    ) -> Timestep:
        clock = state.clock + 1
        is_last = clock >= self.length
        after = ProbeState(state.sign, clock)
        never = jnp.zeros((), jnp.bool_)
        return Timestep(
            obs=self._observe(after),
            state=after,
            reward=self.reward_fn(state.sign, action, is_last) * params,
            terminated=never if self.truncates else is_last,
            truncated=is_last if self.truncates else never,
        )

    def stagger(self, state: ProbeState, fraction: Float[Array, ""]) -> ProbeState:
        return state

    def _observe(self, state: ProbeState) -> Float[Array, " 2"]:
        return jnp.stack([state.sign, state.clock.astype(jnp.float32)])


def constant_reward(sign: Array, action: Array, is_last: Array) -> Array:
    return jnp.ones((), jnp.float32)


def sign_reward(sign: Array, action: Array, is_last: Array) -> Array:
    return sign


def last_reward(sign: Array, action: Array, is_last: Array) -> Array:
    return is_last.astype(jnp.float32)


def action_reward(sign: Array, action: Array, is_last: Array) -> Array:
    return jnp.where(action == 0, 1.0, -1.0)


def sign_action_reward(sign: Array, action: Array, is_last: Array) -> Array:
    return jnp.where((action == 1) == (sign > 0), 1.0, -1.0)
