"""From the name of an environment to the environment.

Apart from `names` because making one needs jax. What is heavy beside that is imported only when an
environment needs it.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from envs import names
from envs.base import Environment, EnvParams
from envs.params import RawValue
from envs.stress import make_stress

if TYPE_CHECKING:
    from envs.bars import MarketSource

HEAVY = {"gymnax": "envs.gymnax_adapter", "brax": "envs.brax_adapter", "trading": "envs.trading"}
"""The module that takes seconds to import, by the kind of environment."""


def make(
    spec: str, env_params: Mapping[str, RawValue], market: "MarketSource | None" = None
) -> tuple[Environment, EnvParams]:
    """Build an environment.

    Args:
        spec: A name that `envs.names.parse` accepts. A factory's module is imported and run.
        env_params: Values by key, as text or as numbers; `best_return` is a key of every
            environment and declares the best return by hand.
        market: The bars that a trading environment runs on; None for synthetic ones.

    Returns:
        The environment, whose sizes are fixed, and its traced parameters.

    Raises:
        UnknownEnvironment: The name is not accepted, or what it needs is not installed.
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
        InvalidMarketData: The bars cannot be used.
        UnusableFactory: A factory cannot be imported, fails, or returns something else.
    """
    name = names.parse(spec)
    if name.kind == "stress":
        return make_stress(env_params)
    if name.kind == "trading":
        from envs.bars import MarketSource
        from envs.trading import make_trading

        return make_trading(name.phase or 1, env_params, market or MarketSource())
    if name.kind == "brax":
        from envs.brax_adapter import make_brax

        return make_brax(name.name, env_params)
    if name.kind == "factory":
        from envs.factory import make_from_factory

        return make_from_factory(spec, env_params)
    from envs.gymnax_adapter import make_gymnax

    return make_gymnax(name.name, env_params)


def preload(spec: str) -> None:
    """Import what making an environment will need; nothing of a user's own is run.

    Raises:
        UnknownEnvironment: The name is not accepted.
    """
    module = HEAVY.get(names.parse(spec).kind)
    if module is not None:
        import_module(module)
