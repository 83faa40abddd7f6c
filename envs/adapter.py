"""Environments of gymnax's shape, seen through our protocol.

Written once for whoever brings one: gymnax, brax and users' own. The differences between the
conventions (who resets, how many values `step` returns, what `done` includes) end here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Shaped

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
from envs.errors import UnusableFactory

DEFAULT_LIMIT = 1000
"""Steps of an evaluation where the environment names no time limit."""

BestReturn: TypeAlias = float | Callable[[Any], float | None] | None
"""A greatest return: a number, a function of concrete parameters, or not known."""

_LIMITS = ("max_steps_in_episode", "max_episode_steps", "episode_length")
_TRUNCATED = ("truncated", "TimeLimit.truncated")
_METHODS = ("reset", "step", "observation_space", "action_space")
_STEP_FORMS = (
    "(obs, state, reward, done, info) or (obs, state, reward, terminated, truncated, info)"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdaptedEnv:
    """One environment of gymnax's shape; `adapt` makes it.

    Two are equal only if they are one object, as what they hold need not be hashable.

    An observation space of `n` discrete states (`num_states`) becomes a one-hot vector of length
    `n`. `uses_step_env` says that `step_env` and `reset_env` of `inner` are called.
    `bootstraps_truncation` is false for an environment that resets by itself: the last observation
    of its episodes is lost, so a time limit is reported as a termination.
    """

    inner: Any
    name: str
    obs_shape: tuple[int, ...]
    action_space: ActionSpace
    eval_steps: int
    uses_step_env: bool
    per_step_return: bool = False
    bootstraps_truncation: bool = True
    num_states: int | None = None
    best: BestReturn = None

    def best_return(self, params: EnvParams) -> float | None:
        """Return the declared maximum; None if there is none.

        Raises:
            UnusableFactory: What was declared is not a finite number.
        """
        best = self.best(params) if callable(self.best) else self.best
        if best is None:
            return None
        try:
            number = float(best)
        except (TypeError, ValueError):
            number = math.nan
        _require(math.isfinite(number), f"best_return of {self.name} must be a finite number, but "
                 f"got {best!r}; leave it out where none is known")  # fmt: skip
        return number

    def reset(
        self, key: PRNGKeyArray, params: EnvParams
    ) -> tuple[Shaped[Array, "*obs_shape"], EnvState]:
        """Start an episode.

        Raises:
            UnusableFactory: While tracing, where `reset` does not return an observation of the
                declared shape and a state of arrays.
        """
        result = (self.inner.reset_env if self.uses_step_env else self.inner.reset)(key, params)
        _require(isinstance(result, tuple) and len(result) == 2,
                 f"reset of {self.name} must return (obs, state), but got {_described(result)}; "
                 "return two values")  # fmt: skip
        obs, state = result
        return self._encode(obs, "reset"), self._arrays(state, "reset")

    def step(
        self, key: PRNGKeyArray, state: EnvState, action: Action, params: EnvParams
    ) -> Timestep:
        """Take one step; `info` is dropped.

        Raises:
            UnusableFactory: While tracing, where `step` does not return what `_STEP_FORMS` says.
        """
        step = self.inner.step_env if self.uses_step_env else self.inner.step
        result = step(key, state, action, params)
        _require(isinstance(result, tuple) and len(result) in (5, 6),
                 f"step of {self.name} must return {_STEP_FORMS}, but got {_described(result)}; "
                 "return five or six values")  # fmt: skip
        obs, state, reward, *_ = result
        terminated, truncated = self._ends(result, params)
        if not self.bootstraps_truncation:
            terminated, truncated = terminated | truncated, jnp.zeros((), jnp.bool_)
        return Timestep(
            obs=self._encode(obs, "step"),
            state=self._arrays(state, "step"),
            reward=self._scalar(reward, "reward", jnp.float32),
            terminated=terminated,
            truncated=truncated,
        )

    def stagger(self, state: EnvState, fraction: Float[Array, ""]) -> EnvState:
        """Return `stagger` of the environment where it has one, else the state unchanged.

        Dynamics and observations may read a clock, so none is moved unasked.
        """
        stagger = getattr(self.inner, "stagger", None)
        return state if stagger is None else self._arrays(stagger(state, fraction), "stagger")

    def _ends(
        self, result: Sequence[Any], params: EnvParams
    ) -> tuple[Bool[Array, ""], Bool[Array, ""]]:
        """Return `terminated` and `truncated`, whichever way the environment tells them apart."""
        if len(result) == 6:
            terminated = self._scalar(result[3], "terminated", jnp.bool_)
            return terminated, self._scalar(result[4], "truncated", jnp.bool_)
        done, info = self._scalar(result[3], "done", jnp.bool_), result[4]
        if hasattr(self.inner, "is_truncated"):
            limit = self.inner.is_truncated(result[1], params)
            truncated = self._scalar(limit, "is_truncated", jnp.bool_)
            # `step_env` of gymnax 1.0 reports natural termination only.
            return done if self.uses_step_env else done & ~truncated, truncated
        for name in _TRUNCATED:
            if isinstance(info, Mapping) and name in info:
                truncated = self._scalar(info[name], f"info[{name!r}]", jnp.bool_)
                return done & ~truncated, truncated
        return done, jnp.zeros((), jnp.bool_)

    def _encode(self, obs: Any, where: str) -> Shaped[Array, "*obs_shape"]:
        array = self._array(obs, f"obs of {where}")
        expected = self.obs_shape if self.num_states is None else ()
        _require(array.shape == expected, f"obs of {where} of {self.name} must have the shape "
                 f"{list(expected)} of observation_space, but got {list(array.shape)}; "
                 "correct one of the two")  # fmt: skip
        return array if self.num_states is None else jax.nn.one_hot(array, self.num_states)

    def _scalar(self, value: Any, what: str, dtype: Any) -> Shaped[Array, ""]:
        array = self._array(value, what)
        _require(array.shape == (), f"{what} of {self.name} must be a single number of shape [], "
                 f"but got shape {list(array.shape)}; index or sum it")  # fmt: skip
        return array.astype(dtype)

    def _array(self, value: Any, what: str) -> Array:
        try:
            return jnp.asarray(value, dtype=jnp.asarray(value).dtype)
        except (TypeError, ValueError) as error:
            raise UnusableFactory(
                f"{what} of {self.name} must be an array, but got {_described(value)}; "
                "return one array of numbers"
            ) from error

    def _arrays(self, state: EnvState, where: str) -> EnvState:
        return as_arrays(state, f"the state that {where} of {self.name} returns")


class MaskedAdaptedEnv(AdaptedEnv):
    """An environment that says which of its discrete actions a state allows."""

    __slots__ = ()

    def action_mask(self, state: EnvState, params: EnvParams) -> Bool[Array, " actions"]:
        """Return the environment's own mask, true where an action is allowed.

        Raises:
            UnusableFactory: While tracing, where it has no entry for every action.
        """
        mask = self._array(self.inner.action_mask(state, params), "action_mask")
        assert isinstance(self.action_space, Discrete)
        expected = (self.action_space.num_actions,)
        _require(mask.shape == expected, f"action_mask of {self.name} must have one entry for each "
                 f"action, shape {list(expected)}, but got {list(mask.shape)}; "
                 "correct it or action_space")  # fmt: skip
        return mask.astype(jnp.bool_)


def adapt(inner: Any, params: EnvParams, *, name: str, best: BestReturn = None) -> AdaptedEnv:
    """Wrap an object of gymnax's shape; nothing is traced.

    Args:
        inner: Has `reset(key, params)`, `step(key, state, action, params)`, `observation_space` and
            `action_space` of params, or `reset_env` and `step_env`, which are called where both
            exist. May have `is_truncated(state, params)`, `per_step_return`, `eval_steps`,
            `best_return`, `action_mask(state, params)`, `stagger(state, fraction)`, `auto_resets`.
        params: Concrete parameters, from which spaces and time limit are read.
        name: For messages.
        best: Overrides `best_return` of `inner`.

    Raises:
        UnusableFactory: Something is missing, or a space or the time limit cannot be used.
    """
    uses_step_env = hasattr(inner, "step_env") and hasattr(inner, "reset_env")
    missing = [method for method in _METHODS if not callable(getattr(inner, method, None))]
    missing = [method for method in missing if not (uses_step_env and method in _METHODS[:2])]
    _require(not missing, f"{name} must have {', '.join(_METHODS)} and default_params, but got "
             f"{_described(inner)} without {', '.join(missing)}; define it")  # fmt: skip
    num_states, obs_shape = _observations(inner.observation_space(params), name)
    action_space = _actions(inner.action_space(params), name)
    is_masked = callable(getattr(inner, "action_mask", None))
    _require(not is_masked or isinstance(action_space, Discrete), f"action_space of {name} must be "
             "discrete where there is an action_mask, but got a box; remove the mask")  # fmt: skip
    return (MaskedAdaptedEnv if is_masked else AdaptedEnv)(
        inner=inner,
        name=name,
        obs_shape=obs_shape,
        action_space=action_space,
        eval_steps=_limit(inner, params, name),
        uses_step_env=uses_step_env,
        per_step_return=bool(getattr(inner, "per_step_return", False)),
        bootstraps_truncation=uses_step_env or not getattr(inner, "auto_resets", False),
        num_states=num_states,
        best=getattr(inner, "best_return", None) if best is None else best,
    )


def as_arrays(tree: Any, what: str) -> Any:
    """Return a pytree with every leaf an array of a fixed type.

    A plain dataclass becomes a pytree here, whose leaves are all its fields.

    Raises:
        UnusableFactory: A leaf is neither a number nor an array; names its path.
    """
    if is_dataclass(tree) and jax.tree_util.all_leaves((tree,)):
        jax.tree_util.register_dataclass(type(tree))
    for path, leaf in jax.tree.leaves_with_path(tree):
        try:
            jnp.asarray(leaf)
        except (TypeError, ValueError) as error:
            place = jax.tree_util.keystr(path)
            raise UnusableFactory(
                f"{what} must hold numbers and arrays only, but got {_described(leaf)}"
                f"{place and f' at {place}'}; keep it on the object instead"
            ) from error
    return strongly_typed(tree)


def _observations(space: Any, name: str) -> tuple[int | None, tuple[int, ...]]:
    """Return the number of discrete states (None for a box) and the shape of an observation."""
    if (num_states := _num_values(space, f"observation_space of {name}")) is not None:
        return num_states, (num_states,)
    _require(_is_box(space), f"observation_space of {name} must be a box (.low, .high, .shape) or "
             f"discrete (.n), but got {_described(space)}; flatten it into one box")  # fmt: skip
    return None, tuple(int(size) for size in space.shape)


def _actions(space: Any, name: str) -> ActionSpace:
    num_actions = _num_values(space, f"action_space of {name}")
    _require(num_actions is not None or _is_box(space),
             f"action_space of {name} must be discrete (.n) or a box (.low, .high, .shape), but "
             f"got {_described(space)}; return one of these")  # fmt: skip
    try:
        if num_actions is not None:
            return Discrete(num_actions)
        low, high = (
            tuple(np.broadcast_to(np.asarray(bound), space.shape).ravel().tolist())
            for bound in (space.low, space.high)
        )
        return Box(low, high, tuple(int(size) for size in space.shape))
    except ValueError as error:
        raise UnusableFactory(f"{name}: {error}") from error


def _num_values(space: Any, what: str) -> int | None:
    """Return how many values a discrete space has; None for any other space."""
    if not hasattr(space, "n") or getattr(space, "shape", ()) not in ((), None):
        return None
    start = int(getattr(space, "start", 0))
    _require(start == 0, f"{what} must start at 0, but got {start}; shift it")
    return int(space.n)


def _is_box(space: Any) -> bool:
    return all(hasattr(space, bound) for bound in ("low", "high", "shape"))


def _limit(inner: Any, params: EnvParams, name: str) -> int:
    """Return the steps within which an episode ends, by the first place that says so."""
    of_params = params.get if isinstance(params, Mapping) else partial(getattr, params)
    places: list[tuple[str, Any]] = [("eval_steps", getattr(inner, "eval_steps", None))]
    places += [(_LIMITS[0], of_params(_LIMITS[0], None))]
    places += [(key, getattr(inner, key, None)) for key in _LIMITS]
    places += [("", DEFAULT_LIMIT)]
    key, limit = next(found for found in places if found[1] is not None)
    try:
        steps = int(limit)
    except (TypeError, ValueError):
        steps = 0
    _require(steps >= 1, f"{key} of {name} must be at least 1, but got {limit!r}; "
             "give the number of steps")  # fmt: skip
    return steps


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return type(value).__name__


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UnusableFactory(message)
