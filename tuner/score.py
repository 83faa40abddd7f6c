"""The composite score: utilisation, quality and throughput, each in [0, 1], as one number.

Apart from the profiles because the search needs a score for every trial, a profile only at the
end. Nothing here is a sentinel: a part that was not measured is `None`, and so is a composite
that would need it.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tuner.errors import UsageError

COMPONENTS = ("gpu", "quality", "sps")
FULL_UTIL = 80.0
"""Device utilisation, in percent, from which `gpu_score` is 1."""
MIN_GAIN_RANGE = (0.005, 0.02)


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each component counts; only their ratios matter.

    The defaults are a GPU's; see `CPU_WEIGHTS`.

    Raises:
        UsageError: A negative or non-finite weight, or three zeros.
    """

    gpu: float = 0.4
    quality: float = 0.4
    sps: float = 0.2

    def __post_init__(self) -> None:
        for name, weight in self.as_dict().items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(
                    f"weight of {name} must be a number of at least 0, but got {weight}; "
                    "use 0 to give it no say"
                )
        if sum(self.as_dict().values()) == 0:
            raise UsageError("weights must not all be 0, but got 0, 0, 0; raise one of them")

    def as_dict(self) -> dict[str, float]:
        """Return the weights by component, in the order of `COMPONENTS`."""
        return {"gpu": self.gpu, "quality": self.quality, "sps": self.sps}


CPU_WEIGHTS = Weights(gpu=0.2, quality=0.6, sps=0.2)
"""Their score orders configs by how soon they reach a return: within 0.02 of the best rank
correlation that any weights come to, and choosing configs as quick as any of those do, by
`benchmarks/score_validity.py`. A CPU's utilisation tells little of its configs; a GPU's may tell
more, of which no table is recorded."""


@dataclass(frozen=True, slots=True)
class ScoreReferences:
    """What a study's scores refer to; fixed at calibration and never moved.

    `sps` is the baseline's throughput in env-steps per second, `components` those in use.

    Raises:
        UsageError: A reference that is not positive, components that are unknown, repeated or
            none, or weights that are all 0 among them.
    """

    sps: float
    components: tuple[str, ...] = COMPONENTS
    weights: Weights = field(default_factory=Weights)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sps) and self.sps > 0):
            raise UsageError(
                f"reference sps must be above 0, but got {self.sps}; measure the baseline first"
            )
        used = set(self.components)
        if not used or len(used) != len(self.components) or not used <= set(COMPONENTS):
            raise UsageError(
                f"components must be some of {', '.join(COMPONENTS)}, each once, "
                f"but got {', '.join(self.components) or 'none'}; choose those that are measured"
            )
        weights = self.weights.as_dict()
        if sum(weights[name] for name in self.components) == 0:
            raise UsageError(
                f"weights of the components in use ({', '.join(self.components)}) must not all "
                "be 0, but got only zeros; raise one of them"
            )


@dataclass(frozen=True, slots=True)
class Scores:
    """The components and their composite, each in [0, 1] or `None`."""

    gpu_score: float | None
    quality_score: float | None
    sps_score: float | None
    final_score: float | None


def score(
    references: ScoreReferences,
    *,
    device_util: float | None,
    quality_score: float | None,
    sps: float | None,
) -> Scores:
    """Score one measurement.

    gpu_score = min(1, device_util / 80); sps_score = sps / (sps + reference), which is 0.5 at the
    baseline and never saturates; final_score is the weighted mean of the components in use.

    Args:
        references: the study's.
        device_util: percent over the measuring window.
        quality_score: in [0, 1], from `tuner.quality`.
        sps: env-steps per second.

    Returns:
        Each component that was measured, in use or not. `final_score` is `None` when a component
        in use was not.

    Raises:
        ValueError: A measured value that is not finite, is negative, or a quality above 1.
    """
    _check("device_util", device_util)
    _check("sps", sps)
    _check("quality_score", quality_score, highest=1.0)
    components = {
        "gpu": None if device_util is None else min(1.0, device_util / FULL_UTIL),
        "quality": quality_score,
        "sps": None if sps is None else sps / (sps + references.sps),
    }
    return Scores(
        gpu_score=components["gpu"],
        quality_score=components["quality"],
        sps_score=components["sps"],
        final_score=_composite(references, components),
    )


def epsilon(replicate_scores: Iterable[Sequence[float]]) -> float | None:
    """Return the width of a tie: two standard deviations of `final_score` between replicates.

    Pooled over configs, √(Σ (n_i − 1)·s_i² / Σ (n_i − 1)), since a single one has few replicates.

    Args:
        replicate_scores: the final scores of each config's replicates; a config with fewer than
            two says nothing and is passed over.

    Returns:
        The width, or `None` when no config has two replicates.
    """
    groups = [scores for scores in replicate_scores if len(scores) >= 2]
    degrees = sum(len(scores) - 1 for scores in groups)
    if degrees == 0:
        return None
    squares = sum((len(scores) - 1) * statistics.variance(scores) for scores in groups)
    return 2 * math.sqrt(squares / degrees)


def default_min_gain(epsilon: float | None) -> float:
    """Return the gain below which the search stops: ε, held within 0.005–0.02.

    Where ε is unknown the lowest, which stops a search latest.
    """
    lowest, highest = MIN_GAIN_RANGE
    return lowest if epsilon is None else min(highest, max(lowest, epsilon))


def _composite(references: ScoreReferences, components: Mapping[str, float | None]) -> float | None:
    weights = references.weights.as_dict()
    total = weighted = 0.0
    for name in references.components:
        value = components[name]
        if value is None:
            return None
        total += weights[name]
        weighted += weights[name] * value
    return min(1.0, weighted / total)


def _check(name: str, value: float | None, *, highest: float = math.inf) -> None:
    if value is not None and not (math.isfinite(value) and 0 <= value <= highest):
        raise ValueError(
            f"{name} must be finite and within 0–{highest:g}, but got {value}; "
            "pass None for what was not measured"
        )
