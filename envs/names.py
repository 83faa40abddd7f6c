"""The names of environments, checked without importing any of them.

Apart from the registry because the command-line process checks names and must never import jax:
this module needs the standard library only.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from envs.errors import UnknownEnvironment

STRESS = "stress"
GYMNAX_PREFIX = "gymnax:"

GYMNAX_DISCRETE = frozenset(
    {
        "Acrobot-v1",
        "Asterix-MinAtar",
        "BernoulliBandit-misc",
        "Breakout-MinAtar",
        "CartPole-v1",
        "Catch-bsuite",
        "DeepSea-bsuite",
        "DiscountingChain-bsuite",
        "FourRooms-misc",
        "Freeway-MinAtar",
        "FrozenLake-misc",
        "GaussianBandit-misc",
        "MemoryChain-bsuite",
        "MetaMaze-misc",
        "MountainCar-v0",
        "Pong-misc",
        "Seaquest-MinAtar",
        "SimpleBandit-bsuite",
        "SpaceInvaders-MinAtar",
        "UmbrellaChain-bsuite",
    }
)
"""Environments of gymnax 1.0.1 with discrete actions that need nothing from the network."""

GYMNAX_CONTINUOUS = frozenset(
    {
        "MountainCarContinuous-v0",
        "Pendulum-v1",
        "PointRobot-misc",
        "Reacher-misc",
        "Swimmer-misc",
    }
)
"""Environments of gymnax 1.0.1 whose actions are vectors of real numbers; they need nothing from
the network either."""

GYMNAX_DOWNLOADS = frozenset({"MNISTBandit-bsuite"})
"""Environments of gymnax 1.0.1 that download a data set when they are made."""

GYMNAX = GYMNAX_DISCRETE | GYMNAX_CONTINUOUS
"""Environments of gymnax 1.0.1 that can be trained here."""

ACCEPTED = (STRESS, *(GYMNAX_PREFIX + name for name in sorted(GYMNAX)))


@dataclass(frozen=True, slots=True)
class EnvName:
    """A name that `parse` accepted: `spec` as given, `name` without the prefix of its kind."""

    kind: Literal["stress", "gymnax"]
    name: str
    spec: str


def parse(spec: str) -> EnvName:
    """Check the name of an environment.

    Args:
        spec: `stress` or `gymnax:NAME`, letter case as gymnax spells it.

    Returns:
        The name, split into its kind and its name within that kind.

    Raises:
        UnknownEnvironment: Nothing of that name exists, or it needs a download.
    """
    if spec == STRESS:
        return EnvName("stress", STRESS, spec)
    if spec.startswith(GYMNAX_PREFIX):
        name = spec.removeprefix(GYMNAX_PREFIX)
        if name in GYMNAX:
            return EnvName("gymnax", name, spec)
        if name in GYMNAX_DOWNLOADS:
            raise UnknownEnvironment(
                f"the environment must be complete on this machine, but got {spec}, which "
                f"downloads a data set; use one of {', '.join(ACCEPTED)}"
            )
    raise UnknownEnvironment(
        f"the environment must be one of {', '.join(ACCEPTED)}, but got {spec!r}{_suggestion(spec)}"
    )


def _suggestion(spec: str) -> str:
    """Return "; did you mean …?" for the accepted name nearest to `spec`, or nothing."""
    by_lower = {accepted.lower(): accepted for accepted in ACCEPTED}
    by_lower |= {name.lower(): GYMNAX_PREFIX + name for name in GYMNAX}
    nearest = difflib.get_close_matches(spec.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[nearest[0]]}?" if nearest else ""
