"""What a child tells of its device, its versions and its environment."""

import importlib.metadata
import platform
from typing import Any

import jax

from envs.base import Box, Environment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "brax", "optuna")


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


def environment_facts(env: Environment, env_params: Any) -> dict[str, Any]:
    """Return what the parent needs to judge returns and to describe the workload.

    `num_actions` is how many discrete actions there are, or how many components an action has;
    `action_space` says which, `discrete` or `box`. `notes` are lines that the user should see.
    """
    space = env.action_space
    notes = list(getattr(env, "notes", ()))
    if not getattr(env, "bootstraps_truncation", True):
        notes.append("the environment resets itself: a time limit is learned from as an ending")
    return {
        "obs_shape": list(env.obs_shape),
        "action_space": "box" if isinstance(space, Box) else "discrete",
        "num_actions": space.num_components if isinstance(space, Box) else space.num_actions,
        "per_step_return": env.per_step_return,
        "best_return": env.best_return(env_params),
        "notes": notes,
    }
