"""What a child tells of its device, its versions and its environment."""

import importlib.metadata
import platform
from typing import Any

import jax

from envs.base import Box
from tuner.child.program import Built

PACKAGES = ("jax", "jaxlib", "optax", "gymnax", "optuna")


def device_facts(device: jax.Device) -> dict[str, Any]:
    """Return what jax says of the device; memory is None where no allocator tells it."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    return {
        "platform": device.platform,
        "device_kind": device.device_kind,
        "local_hardware_id": device.local_hardware_id,
        "bytes_limit": (stats or {}).get("bytes_limit"),
    }


def versions() -> dict[str, str | None]:
    """Return the versions that a measurement depends on."""
    found: dict[str, str | None] = {"tuner": importlib.metadata.version("tuner")}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"python": platform.python_version()}


def environment_facts(built: Built) -> dict[str, Any]:
    """Return what the parent needs to judge returns and to describe the workload.

    `num_actions` is how many discrete actions there are, or how many components an action has;
    `action_space` says which, `discrete` or `box`.
    """
    space = built.env.action_space
    return {
        "obs_shape": list(built.env.obs_shape),
        "action_space": "box" if isinstance(space, Box) else "discrete",
        "num_actions": space.num_components if isinstance(space, Box) else space.num_actions,
        "per_step_return": built.env.per_step_return,
        "best_return": built.env.best_return(built.env_params),
    }
