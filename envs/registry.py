"""From the name of an environment to the environment.

Apart from `names` because making one needs jax; gymnax is imported only when one of its
environments is made.
"""

from collections.abc import Mapping

from envs import names
from envs.base import Environment, EnvParams
from envs.params import RawValue
from envs.stress import make_stress


def make(spec: str, env_params: Mapping[str, RawValue]) -> tuple[Environment, EnvParams]:
    """Build an environment.

    Args:
        spec: A name that `envs.names.parse` accepts.
        env_params: Values by key, as text or as numbers; `best_return` is a key of every
            environment and declares the best return by hand.

    Returns:
        The environment, whose sizes are fixed, and its traced parameters.

    Raises:
        UnknownEnvironment: The name is not accepted.
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
    """
    name = names.parse(spec)
    if name.kind == "stress":
        return make_stress(env_params)
    # Imported here because gymnax costs about ten seconds of CPU time.
    from envs.gymnax_adapter import make_gymnax

    return make_gymnax(name.name, env_params)
