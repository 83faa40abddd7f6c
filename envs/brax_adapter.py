"""Environments of brax 0.14, by name, without its wrappers.

brax's wrappers reset inside `step` and keep the time limit in a dictionary that travels with the
state. Here the limit is ours, so that it truncates and can bootstrap, and only the physics and a
clock are carried.

Apart from the registry because brax comes with an extra and takes seconds to import. It also
prints, warns and leaves a log file in the working directory, none of which a trial may do.
"""

import importlib
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, NamedTuple
from warnings import catch_warnings, simplefilter

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from envs import params as env_params
from envs.adapter import AdaptedEnv, adapt
from envs.base import EnvParams
from envs.errors import InvalidEnvParam, UnknownEnvironment
from envs.params import RawValue, Scalar, require

BACKEND, EPISODE_LENGTH = "backend", "episode_length"
BACKENDS = ("generalized", "positional", "spring", "mjx")
DEFAULT_EPISODE_LENGTH = 1000


class BraxState(NamedTuple):
    """State of one environment: brax's physics, and `clock: []` int32, steps since the reset."""

    physics: Any
    clock: Array


@dataclass(frozen=True, slots=True)
class BoxSpace:
    """A box of `shape`; `low` and `high` bound every component."""

    shape: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BraxEnv:
    """An environment of brax in gymnax's shape; there are no parameters to trace.

    `blank` is a state of brax's with nothing in it: the parts that a step only writes (observation,
    reward, metrics) are taken from there and not carried.
    """

    inner: Any
    blank: Any
    num_actions: int
    obs_shape: tuple[int, ...]
    eval_steps: int

    default_params: ClassVar[tuple[()]] = ()

    def observation_space(self, params: EnvParams) -> BoxSpace:
        """Return the shape of an observation; it is not bounded."""
        del params
        return BoxSpace(self.obs_shape, -jnp.inf, jnp.inf)

    def action_space(self, params: EnvParams) -> BoxSpace:
        """Return brax's convention: −1 to 1, scaled to the actuators inside."""
        del params
        return BoxSpace((self.num_actions,), -1.0, 1.0)

    def reset(
        self, key: PRNGKeyArray, params: EnvParams
    ) -> tuple[Float[Array, " obs_dim"], BraxState]:
        """Start an episode."""
        del params
        with _quiet():
            state = self.inner.reset(key)
        return state.obs, BraxState(state.pipeline_state, jnp.zeros((), jnp.int32))

    def step(
        self,
        key: PRNGKeyArray,
        state: BraxState,
        action: Float[Array, " actions"],
        params: EnvParams,
    ) -> tuple[Any, BraxState, Any, Any, Array, dict[str, Any]]:
        """Take one step; brax's `done` terminates and the episode's length truncates."""
        del key, params
        full = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.blank)
        with _quiet():
            after = self.inner.step(full.replace(pipeline_state=state.physics), action)
        clock = state.clock + 1
        following = BraxState(after.pipeline_state, clock)
        return after.obs, following, after.reward, after.done, clock >= self.eval_steps, {}

    def stagger(self, state: BraxState, fraction: Float[Array, ""]) -> BraxState:
        """Set the clock, which neither physics nor observations read."""
        return state._replace(clock=jnp.floor(fraction * self.eval_steps).astype(jnp.int32))


def make_brax(name: str, given: Mapping[str, RawValue]) -> tuple[AdaptedEnv, EnvParams]:
    """Build an environment of brax from the user's parameters.

    Args:
        name: A name in brax's registry.
        given: Any of `episode_length` (1,000 unless given), `backend` (brax's choice unless given)
            and `best_return`.

    Returns:
        The environment and its parameters, an empty tuple.

    Raises:
        UnknownEnvironment: brax is missing, or has no such environment that works here.
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
    """
    backend = given.get(BACKEND)
    require(
        backend is None or backend in BACKENDS,
        name,
        f"{BACKEND} must be one of {', '.join(BACKENDS)}, but got {backend!r}; leave it out",
    )
    # The backend is text, which `read` does not know; it is listed only for messages.
    kinds: dict[str, type[Scalar]] = {EPISODE_LENGTH: int, BACKEND: float}
    rest = {key: raw for key, raw in given.items() if key != BACKEND}
    values = env_params.read(name, rest, kinds)
    length = int(values.get(EPISODE_LENGTH, DEFAULT_EPISODE_LENGTH))
    require(
        length >= 1,
        name,
        f"{EPISODE_LENGTH} must be at least 1, but got {length}; leave it out",
    )
    best = values.get(env_params.BEST_RETURN)
    env = _wrapped(name, {} if backend is None else {BACKEND: backend}, length)
    return adapt(env, (), name=name, best=None if best is None else float(best)), ()


def _wrapped(name: str, chosen: Mapping[str, RawValue], length: int) -> BraxEnv:
    """Make brax's environment and look, by tracing its reset, at what it is made of."""
    with _quiet():
        envs = _brax_envs()
        try:
            inner = envs.get_environment(name, **chosen)
            blank = jax.eval_shape(inner.reset, jax.eval_shape(jax.random.key, 0))
        except ValueError as error:
            raise InvalidEnvParam(
                f"env param {BACKEND} of {name} must be one that it supports, but got {error}; "
                "leave it out"
            ) from error
        except Exception as error:
            raise UnknownEnvironment(
                f"brax:{name} must work with the brax and jax that are installed, but got "
                f"{type(error).__name__}: {error}; use another environment"
            ) from error
    if not hasattr(blank.obs, "shape"):
        raise UnknownEnvironment(
            f"brax:{name} must have observations of one array, but got "
            f"{type(blank.obs).__name__}; use another environment"
        )
    return BraxEnv(
        inner=inner,
        blank=blank,
        num_actions=inner.action_size,
        obs_shape=tuple(blank.obs.shape),
        eval_steps=length,
    )


def _brax_envs() -> ModuleType:
    try:
        return importlib.import_module("brax.envs")
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise UnknownEnvironment(
            f"an environment of brax needs brax, but got no module {missing!r}; "
            "install the extra: pip install -e '.[brax]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what brax and its physics print, warn of and log."""
    with catch_warnings(), redirect_stdout(io.StringIO()), _no_log_file():
        simplefilter("ignore")
        yield


@contextmanager
def _no_log_file() -> Iterator[None]:
    """Drop MuJoCo's warnings about models, which it writes to a file in the working directory."""
    try:
        mujoco = importlib.import_module("mujoco")
    except ModuleNotFoundError:
        yield
        return
    before: Callable[[str], None] | None = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
