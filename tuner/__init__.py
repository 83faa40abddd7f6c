"""Measure which hardware configuration trains PPO in JAX best on this machine."""

from storage.profile_files import load_profile

__all__ = ["load_profile"]
