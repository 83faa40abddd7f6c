"""Environments of gymnax 1.0, seen through our protocol.

gymnax's own `step` resets by itself and carries the true last observation in a wide `info`. We call
`step_env` and `reset_env` instead: whoever trains resets, and truncation can bootstrap from the
last observation. In 1.0 `step_env` reports natural termination only and `is_truncated(state,
params)` the time limit.

Apart from the registry because importing gymnax takes about ten seconds of CPU time, which only a
trial that needs it should pay.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from envs import params as env_params
from envs.base import (
    Action,
    ActionSpace,
    Box,
    Discrete,
    EnvParams,
    EnvState,
    Timestep,
    strongly_typed,
)
from envs.errors import InvalidEnvParam
from envs.params import RawValue, Scalar, require

DECLARED_BEST: dict[str, Callable[[Any], float]] = {
    "CartPole-v1": lambda params: float(params.max_steps_in_episode),
    "Catch-bsuite": lambda params: 1.0,
    "FourRooms-misc": lambda params: 1.0,
}
"""Greatest possible return by name: CartPole pays 1 a step up to its time limit (500), Catch 1 for
a ball caught and FourRooms 1 for the goal reached."""


@dataclass(frozen=True, slots=True)
class GymnaxEnv:
    """One environment of gymnax.

    An observation space of `n` discrete states becomes a one-hot vector of length `n`.
    `eval_steps` is the time limit of the parameters that it was made with.
    """

    inner: Any
    env_name: str
    obs_shape: tuple[int, ...]
    action_space: ActionSpace
    eval_steps: int
    num_states: int | None = None
    declared_best: float | None = None

    per_step_return: ClassVar[bool] = False

    def best_return(self, params: EnvParams) -> float | None:
        """Return the declared maximum, by hand or from `DECLARED_BEST`; None if there is none."""
        if self.declared_best is not None:
            return self.declared_best
        declared = DECLARED_BEST.get(self.env_name)
        return None if declared is None else declared(params)

    def reset(
        self, key: PRNGKeyArray, params: EnvParams
    ) -> tuple[Shaped[Array, "*obs_shape"], EnvState]:
        """Start an episode."""
        obs, state = self.inner.reset_env(key, params)
        return self._encode(obs), strongly_typed(state)

    def step(
        self, key: PRNGKeyArray, state: EnvState, action: Action, params: EnvParams
    ) -> Timestep:
        """Take one step of `step_env`; gymnax's `info` is dropped."""
        obs, state, reward, terminated, _ = self.inner.step_env(key, state, action, params)
        return Timestep(
            obs=self._encode(obs),
            state=strongly_typed(state),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, jnp.bool_),
            truncated=jnp.asarray(self.inner.is_truncated(state, params), jnp.bool_),
        )

    def stagger(self, state: EnvState, fraction: Float[Array, ""]) -> EnvState:
        """Return the state unchanged: gymnax's dynamics and observations may read its clock."""
        del fraction
        return state

    def _encode(self, obs: Array) -> Shaped[Array, "*obs_shape"]:
        if self.num_states is None:
            return jnp.asarray(obs, dtype=jnp.asarray(obs).dtype)
        return jax.nn.one_hot(obs, self.num_states)


def make_gymnax(name: str, given: Mapping[str, RawValue]) -> tuple[GymnaxEnv, EnvParams]:
    """Build an environment of gymnax from the user's parameters.

    Args:
        name: A name in `envs.names.GYMNAX_DISCRETE` or `GYMNAX_CONTINUOUS`.
        given: Any scalar field of the environment's `EnvParams`, and `best_return`.

    Returns:
        The environment and its traced parameters.

    Raises:
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
    """
    inner, defaults = gymnax.make(name)
    kinds = _scalar_kinds(defaults)
    values = env_params.read(name, given, kinds)
    best = values.pop(env_params.BEST_RETURN, None)
    params = replace(defaults, **values)
    limit = int(params.max_steps_in_episode)
    require(
        limit >= 1,
        name,
        f"max_steps_in_episode must be at least 1, but got {limit}; leave it out",
    )
    try:
        action_space = _action_space(inner.action_space(params))
    except ValueError as error:
        raise InvalidEnvParam(f"{name}: {error}") from error
    space = inner.observation_space(params)
    num_states = int(space.n) if isinstance(space, spaces.Discrete) else None
    env = GymnaxEnv(
        inner=inner,
        env_name=name,
        obs_shape=tuple(space.shape) if num_states is None else (num_states,),
        action_space=action_space,
        eval_steps=limit,
        num_states=num_states,
        declared_best=None if best is None else float(best),
    )
    return env, strongly_typed(params)


def _action_space(space: spaces.Discrete | spaces.Box) -> ActionSpace:
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    low, high = (
        tuple(np.broadcast_to(np.asarray(bound), space.shape).ravel().tolist())
        for bound in (space.low, space.high)
    )
    return Box(low, high, tuple(space.shape))


def _scalar_kinds(defaults: Any) -> dict[str, type[Scalar]]:
    """Return the type of each parameter that is a single number; arrays cannot be set by name."""
    values = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    return {key: type(value) for key, value in values.items() if isinstance(value, Scalar)}
