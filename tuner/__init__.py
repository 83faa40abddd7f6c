"""Measure which hardware configuration trains PPO in JAX best on this machine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.profile_files import load_profile

__all__ = ["load_profile"]


def __getattr__(name: str) -> Any:
    """Import `load_profile` when it is asked for: `tuner --help` and trials do without."""
    if name == "load_profile":
        from storage.profile_files import load_profile

        return load_profile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
