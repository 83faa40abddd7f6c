"""Peers without jax, for the processes of `benchmarks/ppo_peers.py`."""

import os

from peer import PeerConfig


class Quick:
    """Counts its rounds, and trains one round's env-steps while it compiles."""

    def __init__(self, config: PeerConfig) -> None:
        self._config = config

    def compile(self) -> int:
        os.write(1, b"what a library prints must not be taken for an answer\n")
        return self._config.env_steps

    def run(self) -> int:
        sum(range(20_000))
        return self._config.env_steps


class Pinned(Quick):
    """Says on how many cores it may run."""

    def run(self) -> int:
        return len(os.sched_getaffinity(0))


class Broken(Quick):
    """Cannot be run."""

    def run(self) -> int:
        raise ValueError("no such thing")


class Aborting(Quick):
    """Takes its process down."""

    def compile(self) -> int:
        os.write(2, b"the last words\n")
        os._exit(3)
