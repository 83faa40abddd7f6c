"""Measure which hardware configuration trains PPO in JAX best on this machine."""
