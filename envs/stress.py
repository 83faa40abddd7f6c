"""The stress environment: a learning problem of known optimum whose load can be set.

It exists so that hardware is measured on training that means something: the best return has a
closed form, so a policy's quality is a fact and not a comparison. The load (`obs_dim`,
`state_bytes`, `work`) changes what a step costs, never the optimum.

A hidden signal follows `s' = ρ·s + √(1−ρ²)·ε`, ε ~ N(0, 1), started from its stationary N(0, 1).
The agent sees it mixed with noise, takes a position of 0, +1 or −1 and earns
`position·s' − c·|position|`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from numpy.typing import NDArray

from envs import params as env_params
from envs.base import Discrete, Timestep
from envs.params import RawValue, Scalar, require

NAME = "stress"
KINDS: dict[str, type[Scalar]] = {
    "rho": float,
    "cost": float,
    "obs_dim": int,
    "episode_length": int,
    "state_bytes": int,
    "work": int,
    "seed": int,
}
BYTES_PER_FLOAT = 4
HOLD, BUY, SELL = 0, 1, 2


class StressParams(NamedTuple):
    """What the optimum depends on, traced: persistence ρ in (0, 1] and cost c ≥ 0 per position."""

    rho: Array
    cost: Array


class StressState(NamedTuple):
    """State of one environment.

    `signal: []` float32, `clock: []` int32 steps since the episode's start, `payload:
    [state_bytes / 4]` and `workspace: [work, work]` float32, which only cost memory and time.
    """

    signal: Array
    clock: Array
    payload: Array
    workspace: Array


@dataclass(frozen=True, slots=True)
class Stress:
    """The environment; its fields fix shapes and are therefore static.

    `state_bytes` is carried, read and written at every step; `work` is the side of a square matrix
    product per step. `declared_best` overrides the closed form.
    """

    obs_dim: int = 32
    episode_length: int = 1000
    state_bytes: int = 0
    work: int = 0
    seed: int = 0
    declared_best: float | None = None

    action_space: ClassVar[Discrete] = Discrete(num_actions=3)
    per_step_return: ClassVar[bool] = True
    eval_steps: ClassVar[int] = 2000

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return (self.obs_dim,)

    def best_return(self, params: StressParams) -> float:
        """Return the greatest expected reward per step, `2·[ρ·φ(k) − c·(1 − Φ(k))]`, `k = c/ρ`.

        Knowing `s`, a position earns `|ρ·s| − c` on average, so the best policy takes the sign of
        `s` wherever that is positive; the expression is its expectation under s ~ N(0, 1).
        """
        if self.declared_best is not None:
            return self.declared_best
        rho, cost = float(params.rho), float(params.cost)
        k = cost / rho
        density = math.exp(-0.5 * k**2) / math.sqrt(2 * math.pi)
        tail = 0.5 * math.erfc(k / math.sqrt(2))
        return 2 * (rho * density - cost * tail)

    def random_return(self, params: StressParams) -> float:
        """Return the expected reward per step of uniformly random actions, `−2c/3`."""
        return -2 / 3 * float(params.cost)

    def reset(
        self, key: PRNGKeyArray, params: StressParams
    ) -> tuple[Float[Array, " obs_dim"], StressState]:
        """Start an episode with the signal drawn from its stationary distribution."""
        del params
        draws = jax.random.normal(key, (self.obs_dim,))
        state = StressState(
            signal=draws[0],
            clock=jnp.zeros((), jnp.int32),
            payload=jnp.zeros((self.state_bytes // BYTES_PER_FLOAT,), jnp.float32),
            workspace=jnp.eye(self.work, dtype=jnp.float32),
        )
        return self._mix(draws), state

    def step(
        self, key: PRNGKeyArray, state: StressState, action: Int[Array, ""], params: StressParams
    ) -> Timestep:
        """Advance the signal, pay the position; after `episode_length` steps it is truncated."""
        draws = jax.random.normal(key, (self.obs_dim,))
        innovation = jnp.sqrt(1 - params.rho**2) * draws[0]
        signal = params.rho * state.signal + innovation
        position = (action == BUY).astype(jnp.float32) - (action == SELL).astype(jnp.float32)
        clock = state.clock + 1
        return Timestep(
            obs=self._mix(draws.at[0].set(signal)),
            state=StressState(
                signal=signal,
                clock=clock,
                payload=0.5 * state.payload + signal,
                workspace=self._rotation() @ state.workspace,
            ),
            reward=position * signal - params.cost * jnp.abs(position),
            terminated=jnp.zeros((), jnp.bool_),
            truncated=clock >= self.episode_length,
        )

    def stagger(self, state: StressState, fraction: Float[Array, ""]) -> StressState:
        """Set the episode clock, so that the resets of many environments do not fall together."""
        clock = jnp.floor(fraction * self.episode_length).astype(jnp.int32)
        return state._replace(clock=clock)

    def _mix(self, latents: Float[Array, " obs_dim"]) -> Float[Array, " obs_dim"]:
        """Mix the signal and the noise by a fixed orthogonal map.

        A Householder reflection that sends the signal's axis to a random direction. The noise is
        isotropic, so the observations are distributed as under any other orthogonal matrix with
        that first column, at a cost of `obs_dim` instead of `obs_dim²`.
        """
        normal = jnp.asarray(self._mirror())
        return latents - 2 * normal * jnp.dot(normal, latents)

    def _mirror(self) -> NDArray[np.float32]:
        """Return the unit normal of the reflection, or zeros where there is nothing to mix."""
        if self.obs_dim == 1:
            return np.zeros((1,), np.float32)
        direction = np.random.default_rng(self.seed).normal(size=self.obs_dim)
        normal = -direction / np.linalg.norm(direction)
        normal[0] += 1
        return np.asarray(normal / np.linalg.norm(normal), np.float32)

    def _rotation(self) -> Float[Array, "work work"]:
        """Return a fixed orthogonal matrix, so that the workspace neither grows nor vanishes."""
        square = np.random.default_rng(self.seed).normal(size=(self.work, self.work))
        return jnp.asarray(np.linalg.qr(square)[0].astype(np.float32))


def make_stress(given: Mapping[str, RawValue]) -> tuple[Stress, StressParams]:
    """Build the stress environment from the user's parameters.

    Args:
        given: Any of `KINDS` and `best_return`; the defaults are ρ 0.9, c 0.3 and `Stress()`.

    Returns:
        The environment and its traced parameters.

    Raises:
        InvalidEnvParam: A key is unknown, or a value has the wrong type or range.
    """
    values = env_params.read(NAME, given, KINDS)
    rho, cost = float(values.pop("rho", 0.9)), float(values.pop("cost", 0.3))
    best = values.pop(env_params.BEST_RETURN, None)
    sizes = {key: int(value) for key, value in values.items()}
    env = Stress(**sizes, declared_best=None if best is None else float(best))
    _check(env, rho, cost)
    return env, StressParams(jnp.float32(rho), jnp.float32(cost))


def _check(env: Stress, rho: float, cost: float) -> None:
    require(0 < rho <= 1, NAME, f"rho must be above 0 and at most 1, but got {rho}; try 0.9")
    require(cost >= 0, NAME, f"cost must be at least 0, but got {cost}; try 0.3")
    for key in ("obs_dim", "episode_length"):
        value = getattr(env, key)
        require(value >= 1, NAME, f"{key} must be at least 1, but got {value}; leave it out")
    for key in ("state_bytes", "work", "seed"):
        value = getattr(env, key)
        require(value >= 0, NAME, f"{key} must be at least 0, but got {value}; leave it out")
