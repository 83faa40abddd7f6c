"""Measure which hardware configuration trains PPO in JAX best on this machine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.profile_files import load_profile
    from tuner.tuning import tune

__all__ = ["load_profile", "tune"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `tuner --help` and trials do without either."""
    if name == "load_profile":
        from storage.profile_files import load_profile

        return load_profile
    if name == "tune":
        from tuner.tuning import tune

        return tune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
