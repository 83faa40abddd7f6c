"""The names of environments, checked without importing any of them.

Apart from the registry because the command-line process checks names and must never import jax:
this module needs the standard library only.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from envs.errors import UnknownEnvironment

STRESS = "stress"
TRADING = ("trading-phase1", "trading-phase2")
GYMNAX_PREFIX = "gymnax:"
BRAX_PREFIX = "brax:"
OURS = ("envs", "storage", "tuner")
"""Top-level packages of this project: a module of that name would be hidden by them."""

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

BRAX = frozenset(
    {
        "ant",
        "fast",
        "halfcheetah",
        "hopper",
        "humanoid",
        "humanoidstandup",
        "inverted_double_pendulum",
        "inverted_pendulum",
        "pusher",
        "reacher",
        "walker2d",
    }
)
"""Environments of brax 0.14, which come with the extra `brax`. Its swimmer is not among them: it
calls what today's jax no longer has."""

ACCEPTED = (
    STRESS,
    *TRADING,
    *(GYMNAX_PREFIX + name for name in sorted(GYMNAX)),
    *(BRAX_PREFIX + name for name in sorted(BRAX)),
)
"""Every name but those of a user's own, which have the form `package.module:factory`."""


@dataclass(frozen=True, slots=True)
class EnvName:
    """A name that `parse` accepted: `spec` as given, `name` without the prefix of its kind."""

    kind: Literal["stress", "trading", "gymnax", "brax", "factory"]
    name: str
    spec: str

    @property
    def phase(self) -> Literal[1, 2] | None:
        """The phase of a trading environment, None for any other."""
        if self.kind != "trading":
            return None
        return 1 if self.spec == TRADING[0] else 2


def parse(spec: str) -> EnvName:
    """Check the name of an environment.

    Args:
        spec: `stress`, `trading-phase1`, `trading-phase2`, `gymnax:NAME` or `brax:NAME` in the
            letter case of their authors, or `package.module:factory`.

    Returns:
        The name, split into its kind and its name within that kind. Whether a factory exists is
        known only once its module is imported.

    Raises:
        UnknownEnvironment: Nothing of that name exists, it needs a download, or it is a factory
            in a module that ours would hide.
    """
    if spec == STRESS:
        return EnvName("stress", STRESS, spec)
    if spec in TRADING:
        return EnvName("trading", spec, spec)
    if spec.startswith(GYMNAX_PREFIX):
        name = spec.removeprefix(GYMNAX_PREFIX)
        if name in GYMNAX:
            return EnvName("gymnax", name, spec)
        if name in GYMNAX_DOWNLOADS:
            raise UnknownEnvironment(
                f"the environment must be complete on this machine, but got {spec}, which "
                f"downloads a data set; use {_choices(GYMNAX_PREFIX)}"
            )
    elif spec.startswith(BRAX_PREFIX):
        name = spec.removeprefix(BRAX_PREFIX)
        if name in BRAX:
            return EnvName("brax", name, spec)
    elif is_factory(spec) and not _is_file(spec):
        require_own_module(spec)
        return EnvName("factory", spec, spec)
    suggestion = _own_code(spec) or _suggestion(spec)
    raise UnknownEnvironment(
        f"the environment must be {_choices(spec, is_short=bool(suggestion))}, but got {spec!r}"
        f"{suggestion}"
    )


def is_factory(spec: str) -> bool:
    """Return whether a text has the form `package.module:factory` and no prefix of ours."""
    if spec.startswith((GYMNAX_PREFIX, BRAX_PREFIX)):
        return False
    name = r"[^\W\d]\w*"
    return re.fullmatch(rf"{name}(\.{name})*:{name}", spec) is not None


def require_own_module(spec: str) -> None:
    """Refuse a factory in a module that a package of ours would hide.

    Raises:
        UnknownEnvironment: Its top-level package is called like one of ours.
    """
    package = re.split(r"[.:]", spec)[0]
    if package in OURS:
        raise UnknownEnvironment(
            f"a factory must be in a module of your own, but got {spec!r}, and {package!r} is a "
            f"package of tuner; rename yours, as my_{package}"
        )


def _choices(spec: str, *, is_short: bool = False) -> str:
    """Return the names to choose from: all of the prefix that was used, else the kinds.

    A short answer counts those of a prefix: the one that was meant is named beside it.
    """
    for prefix, known in ((GYMNAX_PREFIX, GYMNAX), (BRAX_PREFIX, BRAX)):
        if spec.startswith(prefix) and is_short:
            return f"one of the {len(known)} that begin with {prefix}"
        if spec.startswith(prefix):
            return f"one of {', '.join(prefix + name for name in sorted(known))}"
    return (
        f"{', '.join((STRESS, *TRADING))}, {GYMNAX_PREFIX}NAME, {BRAX_PREFIX}NAME or your own as "
        "package.module:factory"
    )


def _is_file(spec: str) -> bool:
    """Return whether the module of a factory is written as a file, as `my_env.py:make_env`."""
    return spec.partition(":")[0].endswith(".py")


def _own_code(spec: str) -> str:
    """Return "; did you mean …?" for a factory that is written as a file or with dots alone."""
    module, _, factory = spec.partition(":")
    if _is_file(spec):
        module, factory = module.removesuffix(".py").replace("/", "."), factory or "FACTORY"
    elif not factory:
        module, _, factory = spec.rpartition(".")
    meant = f"{module}:{factory}"
    return f"; did you mean {meant}?" if is_factory(meant) else ""


def _suggestion(spec: str) -> str:
    """Return "; did you mean …?" for the accepted name nearest to `spec`, or nothing."""
    by_lower = {accepted.lower(): accepted for accepted in ACCEPTED}
    by_lower |= {name.lower(): BRAX_PREFIX + name for name in BRAX}
    by_lower |= {name.lower(): GYMNAX_PREFIX + name for name in GYMNAX}
    # With its prefix a short name would be near to any other of that prefix.
    bare = spec.removeprefix(GYMNAX_PREFIX).removeprefix(BRAX_PREFIX).lower()
    nearest = difflib.get_close_matches(bare, by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[nearest[0]]}?" if nearest else ""
