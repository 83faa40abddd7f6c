"""What a PPO must be to stand in the comparison: a factory, `compile`, `run`.

Standard library only, so that the parent reads it without jax. A peer of your own:

    # package/module.py
    class Mine:
        def __init__(self, config): ...
        def compile(self): ...                # everything up to the first update
        def run(self): ...                    # `config.updates` updates, waited for
            return config.env_steps

    .venv/bin/python benchmarks/ppo_peers.py --peer package.module:Mine
"""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """What every peer trains alike; `updates` is how many one `run` does."""

    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int
    updates: int = 1
    env: str = "CartPole-v1"
    network: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    seed: int = 0
    hyperparams: dict[str, float] = field(
        default_factory=lambda: {
            "learning_rate": 3e-4,
            "gamma": 0.99,
            "gae_lambda": 0.95,
            "clip_eps": 0.2,
            "ent_coef": 0.01,
            "vf_coef": 0.5,
            "max_grad_norm": 0.5,
        }
    )

    @property
    def batch_size(self) -> int:
        """Env-steps of one update."""
        return self.num_envs * self.num_steps

    @property
    def env_steps(self) -> int:
        """Env-steps of one `run`."""
        return self.updates * self.batch_size

    @property
    def sizes(self) -> dict[str, int]:
        """The four numbers by name."""
        names = ("num_envs", "num_steps", "num_minibatches", "num_epochs")
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PeerConfig":
        """Return what `as_dict` gave, after its way through JSON."""
        return cls(**data | {"network": tuple(data["network"])})

    def __str__(self) -> str:
        return f"({self.num_envs},{self.num_steps},{self.num_minibatches},{self.num_epochs})"


class Peer(Protocol):
    """One PPO, made for one config in a process of its own."""

    def compile(self) -> int | None:
        """Do everything that comes before the first update of a run.

        Returns:
            Env-steps that had to be trained on the way, where compiling cannot be had alone; their
            time is taken off. None or 0 otherwise.
        """

    def run(self) -> int:
        """Train for `config.updates` updates, wait for them, and return their env-steps."""


PeerFactory = Callable[[PeerConfig], Peer]


def resolve(spec: str) -> PeerFactory:
    """Return the factory that `package.module:factory` names.

    Raises:
        ValueError: The text has not that form, or the module has nothing of that name.
        ImportError: The module, or what it needs, is not installed.
    """
    module_name, _, name = spec.partition(":")
    if not module_name or not name:
        raise ValueError(f"a peer must be package.module:factory, but got {spec!r}")
    factory: PeerFactory | None = getattr(importlib.import_module(module_name), name, None)
    if factory is None:
        raise ValueError(f"{module_name} must define {name}, but it does not; correct {spec!r}")
    return factory
