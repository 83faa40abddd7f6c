"""The ways to search that are replayed: ours and what it must beat."""

from functools import partial
from importlib.util import find_spec

from optuna.samplers import BaseSampler
from replay_study import Method

from tuner.config import StudyConfig
from tuner.search.sampler import make_sampler

NEVER = 10_000
"""Patience of a search that is ended by its budget alone."""


def _sampler(name: str, config: StudyConfig, seed: int) -> BaseSampler:
    return make_sampler(name, config.space(), seed=seed)


def _method(name: str, **settings: object) -> Method:
    return Method(partial(_sampler, name), {"patience": NEVER, **settings})


METHODS: dict[str, Method] = {
    "structured": _method("structured"),
    "structured_lossless": _method("structured", pruner="lossless"),
    "structured_median": _method("structured", pruner="median"),
    "random": _method("random"),
    "grid": _method("grid"),
    "tpe": _method("tpe"),
    # The first tool: light configs before heavy ones, given up after three without a gain.
    "ascending_patience3": _method("grid", patience=3, min_trials=1, min_gain=0.5),
}
if find_spec("torch") is not None:  # the extra `gp`
    METHODS["gp"] = _method("gp", sampler="gp")
