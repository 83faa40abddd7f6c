"""A probe environment: problems so small that what must be learned can be derived by hand.

After the probes of rejax: each isolates one part of the learner. They differ only in traced
parameters, so that one compiled program serves them all.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from envs.base import Box, Discrete, Timestep, strongly_typed


class ProbeParams(NamedTuple):
    """What the reward consists of, and how episodes run.

    The reward of a step is the sum of `constant`, `by_sign` times the sign observed, `at_end` on
    the last step, `by_action` times +1 for action 0 and −1 for action 1, and `by_match` times +1
    where action 1 meets a positive sign or action 0 another, else −1.
    """

    constant: Array | float = 0.0
    by_sign: Array | float = 0.0
    at_end: Array | float = 0.0
    by_action: Array | float = 0.0
    by_match: Array | float = 0.0
    length: Array | int = 1
    has_sign: Array | bool = False
    truncates: Array | bool = False

    def as_arrays(self) -> "ProbeParams":
        arrays: ProbeParams = strongly_typed(self)
        return arrays


class ProbeState(NamedTuple):
    """`sign: []` is ±1 (or 0), `clock: []` the steps since the reset."""

    sign: Array
    clock: Array


@dataclass(frozen=True, slots=True)
class Probe:
    """Two actions; the observation is `[sign, clock]`."""

    eval_steps: int = 16

    obs_shape: ClassVar[tuple[int, ...]] = (2,)
    action_space: ClassVar[Discrete] = Discrete(2)
    per_step_return: ClassVar[bool] = False

    def best_return(self, params: ProbeParams) -> float | None:
        return None

    def reset(
        self, key: PRNGKeyArray, params: ProbeParams
    ) -> tuple[Float[Array, " 2"], ProbeState]:
        sign = jax.random.rademacher(key, (), jnp.float32) * params.has_sign
        state = ProbeState(sign, jnp.zeros((), jnp.int32))
        return self._observe(state), state

    def step(
        self, key: PRNGKeyArray, state: ProbeState, action: Int[Array, ""], params: ProbeParams
    ) -> Timestep:
        after = ProbeState(state.sign, state.clock + 1)
        is_last = after.clock >= params.length
        is_match = (action == 1) == (state.sign > 0)
        reward = (
            params.constant
            + params.by_sign * state.sign
            + params.at_end * is_last
            + params.by_action * jnp.where(action == 0, 1.0, -1.0)
            + params.by_match * jnp.where(is_match, 1.0, -1.0)
        )
        return Timestep(
            obs=self._observe(after),
            state=after,
            reward=reward,
            terminated=is_last & ~params.truncates,
            truncated=is_last & params.truncates,
        )

    def stagger(self, state: ProbeState, fraction: Float[Array, ""]) -> ProbeState:
        return state

    def _observe(self, state: ProbeState) -> Float[Array, " 2"]:
        return jnp.stack([state.sign, state.clock.astype(jnp.float32)])


@dataclass(frozen=True, slots=True)
class BoxProbe(Probe):
    """Two real numbers, as a column; best are ½·sign and −¼. The reward is −(distance)².

    The observation after a step is the action as it arrived, for those who look.
    """

    action_space: ClassVar[Box] = Box((-1.0, -0.5), (1.0, 0.5), (2, 1))  # type: ignore[assignment]

    def step(  # type: ignore[override]
        self, key: PRNGKeyArray, state: ProbeState, action: Float[Array, "2 1"], params: ProbeParams
    ) -> Timestep:
        wanted = jnp.stack([0.5 * state.sign, jnp.float32(-0.25)])
        after = ProbeState(state.sign, state.clock + 1)
        return Timestep(
            obs=action[:, 0],
            state=after,
            reward=params.constant - jnp.square(action[:, 0] - wanted).sum(),
            terminated=after.clock >= params.length,
            truncated=jnp.zeros((), jnp.bool_),
        )


@dataclass(frozen=True, slots=True)
class MaskedProbe(Probe):
    """Four actions; 0 and 1 are allowed at a positive sign, 1 alone at another.

    Action 0 earns 1, action 1 nothing, and the forbidden ones would earn 100.
    """

    action_space: ClassVar[Discrete] = Discrete(4)

    def action_mask(self, state: ProbeState, params: ProbeParams) -> Bool[Array, " 4"]:
        return jnp.stack(
            [state.sign > 0, *(jnp.bool_(allowed) for allowed in (True, False, False))]
        )

    def step(
        self, key: PRNGKeyArray, state: ProbeState, action: Int[Array, ""], params: ProbeParams
    ) -> Timestep:
        timestep = Probe.step(self, key, state, action, params)
        return timestep._replace(reward=jnp.array([1.0, 0.0, 100.0, 100.0])[action])
