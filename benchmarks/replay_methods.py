"""The ways to search that are replayed: ours and what it must beat."""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

from optuna.samplers import BaseSampler, TPESampler
from replay_study import Method

from tuner.config import StudyConfig
from tuner.search.priors import PRIORS, Priors
from tuner.search.sampler import HardwareSampler, make_sampler
from tuner.search.structured import StructuredSampler

LEFT_OUT = "structured_left_out"
"""Ours, expecting what other environments let one expect; `priors` makes it, for each table."""
OURS = ("structured", LEFT_OUT)
"""Our own way to search."""
NEVER = 10_000
"""Patience of a search that is ended by its budget alone."""
EAGER_TRIALS = 3
"""Trials, the baseline among them, after which TPE need not draw at random any more."""


def _sampler(name: str, config: StudyConfig, seed: int) -> BaseSampler:
    return make_sampler(name, config.space(), seed=seed)


def _method(name: str, **settings: object) -> Method:
    return Method(partial(_sampler, name), {"patience": NEVER, **settings})


def _eager_tpe(config: StudyConfig, seed: int) -> BaseSampler:
    tpe = TPESampler(seed=seed, multivariate=True, n_startup_trials=EAGER_TRIALS)
    return HardwareSampler(config.space(), tpe, seed=seed)


def _without_slopes(config: StudyConfig, seed: int) -> BaseSampler:
    known = PRIORS["cpu"]
    level = [
        replace(prior, slopes=(0.0,) * len(prior.slopes), slopes_doubt=0.0, curve=None)
        for prior in (known.util, known.quality, known.log_sps)
    ]
    return expecting(Priors(*level), config, seed)


def expecting(priors: Priors, config: StudyConfig, seed: int) -> BaseSampler:
    """Return our sampler with other expectations than its own."""
    inner = StructuredSampler(config.space(), seed=seed, priors=priors)
    return HardwareSampler(config.space(), inner, seed=seed)


METHODS: dict[str, Method] = {
    "structured": _method("structured"),
    "structured_lossless": _method("structured", pruner="lossless"),
    "structured_median": _method("structured", pruner="median"),
    # What slopes and the curve are worth, expected or learned.
    "structured_without_slopes": Method(_without_slopes, {"patience": NEVER}),
    "random": _method("random"),
    "grid": _method("grid"),
    "tpe": _method("tpe"),
    # Optuna's default draws its first ten trials at random.
    "tpe_eager": Method(_eager_tpe, {"patience": NEVER}),
    # The first tool: light configs before heavy ones, given up after three without a gain of 0.5,
    # half of all that a score can be, so that it always ends there.
    "ascending_patience3": _method("grid", patience=3, min_trials=1, min_gain=0.5),
}
if find_spec("torch") is not None:  # the extra `gp`
    METHODS["gp"] = _method("gp", sampler="gp")
