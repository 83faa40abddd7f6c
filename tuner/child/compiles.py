"""Counts what XLA compiles, so that "nothing recompiles" is asserted and not hoped for."""

import jax

_COMPILE = "/jax/core/compile/backend_compile_duration"
_CACHE_HIT = "/jax/compilation_cache/cache_hits"


class CompileCounter:
    """Counts compilations and hits of the persistent cache from its making on.

    A program read from the persistent cache counts as a compilation too: what must not happen in
    a measuring window is that a new program is wanted at all. Source: `jax.monitoring` events.
    """

    def __init__(self) -> None:
        self.compiles = 0
        self.cache_hits = 0
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)

    def _on_duration(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        self.compiles += event == _COMPILE

    def _on_event(self, event: str, **kwargs: str | int) -> None:
        self.cache_hits += event == _CACHE_HIT
