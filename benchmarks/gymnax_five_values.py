"""gymnax 1.0 environments as peers written for gymnax 0.x expect them.

Apart from the peers because both the speed and the learning benchmark give it to rejax. gymnax
1.0's `step` returns `(obs, state, reward, terminated, truncated, info)`; the peers unpack five
values. `info` is left out: in 1.0 it holds the final observation, which a scan would stack.
"""

from dataclasses import dataclass
from typing import Any

import gymnax
import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class FiveValues:
    """An environment whose `step` returns five values and resets by itself."""

    inner: Any

    def __getattr__(self, name: str) -> Any:
        # Copies and pickles ask for attributes before `inner` is there.
        if name == "inner" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def reset(self, key: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        """Start an episode."""
        obs, state = self.inner.reset(key, params)
        return obs, state

    def step(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, Any]]:
        """Take one step; `done` is true for an ending of either kind."""
        obs, state, reward, terminated, truncated, _ = self.inner.step(key, state, action, params)
        return obs, state, reward, jnp.logical_or(terminated, truncated), {}


def make_five_values(name: str) -> tuple[FiveValues, Any]:
    """Return an environment of gymnax behind the wrapper, and its default parameters."""
    inner, params = gymnax.make(name)
    return FiveValues(inner), params
