"""Environments of gymnax 1.0, by name.

gymnax's own `step` resets by itself and carries the true last observation in a wide `info`. The
adapter calls `step_env` and `reset_env` instead: whoever trains resets, and truncation can
bootstrap from the last observation. In 1.0 `step_env` reports natural termination only and
`is_truncated(state, params)` the time limit.

Apart from the registry because importing gymnax takes about ten seconds of CPU time, which only a
trial that needs it should pay.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gymnax

from envs import params as env_params
from envs.adapter import AdaptedEnv, adapt
from envs.base import EnvParams, strongly_typed
from envs.errors import InvalidEnvParam, UnusableFactory
from envs.factory import replaced, scalar_kinds
from envs.params import RawValue, require

DECLARED_BEST: dict[str, Callable[[Any], float]] = {
    "CartPole-v1": lambda params: float(params.max_steps_in_episode),
    "Catch-bsuite": lambda params: 1.0,
    "FourRooms-misc": lambda params: 1.0,
}
"""Greatest possible return by name: CartPole pays 1 a step up to its time limit (500), Catch 1 for
a ball caught and FourRooms 1 for the goal reached."""


def make_gymnax(name: str, given: Mapping[str, RawValue]) -> tuple[AdaptedEnv, EnvParams]:
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
    values = env_params.read(name, given, scalar_kinds(defaults))
    best = values.pop(env_params.BEST_RETURN, None)
    params = replaced(defaults, values)
    limit = int(params.max_steps_in_episode)
    require(
        limit >= 1,
        name,
        f"max_steps_in_episode must be at least 1, but got {limit}; leave it out",
    )
    declared = DECLARED_BEST.get(name) if best is None else float(best)
    try:
        env = adapt(inner, params, name=name, best=declared)
    except UnusableFactory as error:
        raise InvalidEnvParam(str(error)) from error
    return env, strongly_typed(params)
