"""What configs learned in an earlier study: kept by a transfer that times them on another device.

Apart from the transfer because a session puts it to every measurement, and every export writes it
down for the next. What a config learns is the algorithm's and the environment's, not the device's:
another one rounds otherwise, which is another seed at most. Speed, memory and utilisation are never
kept.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.profile import Profile
from storage.records import CurvePoint, TrialRecord
from tuner.aggregate import MEAN_KEPT
from tuner.errors import UsageError
from tuner.measurement import EarlierVerdict, Measurement
from tuner.quality import QualityReferences
from tuner.space import HardwareConfig
from tuner.workload import hardware_config, measured_rate

FACT = "kept_learning"
"""The fact of a study that keeps learning: a `KeptLearning` as plain data."""
MEASURED_KEY = "learning"
"""The key in a profile's `measured`: a list of `Learning`, of the front and the baseline."""
TRAININGS = "trainings"
"""The key in `measured` for how many trainings a kept quality rests on; its speed rests on other
measurements, `replicates`."""
SOURCE, ORIGIN = "source", "learning_from"
"""The keys for the hash of the code that trained, and for where kept learning is from."""
CURVE_POINTS = 16
"""Points of a curve that travel in a profile; a training has at most 32 blocks."""
DIGITS = 5
MOST_POINTS = 4000
"""Points of all curves together: a profile of a wide front stays a small file."""
FEWEST_TRAININGS = 3
"""Of the baseline, whose spread over seeds judges what is a tie."""
SURPRISING_SE = 4.0
"""Standard errors of the difference by which the random policy may return otherwise here,"""
SURPRISING_SHARE = 0.02
"""and the share of the way from random to best, if that is more."""

KEPT = "kept from "
"""What the reason of a kept quality begins with, where it is one training's alone."""

Quality = Annotated[float, Field(ge=0, le=1)]
Figure = Annotated[float, Field(ge=-1e30, le=1e30)]
Count = Annotated[int, Field(ge=1, le=2**53)]
Figures = Annotated[tuple[Figure | None, ...], Field(max_length=1000)]
Read = Callable[[TrialRecord], Sequence[CurvePoint]]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LearningCurve(_Facts):
    """Mean return and entropy (nats) of blocks of a training, by the env-steps at their end."""

    env_steps: tuple[Count, ...] = Field(min_length=1, max_length=1000)
    mean_return: Figures
    entropy: Figures

    @model_validator(mode="after")
    def _require_equal_lengths(self) -> Self:
        if not len(self.env_steps) == len(self.mean_return) == len(self.entropy):
            raise ValueError("a curve must have as many returns and entropies as env-steps")
        if list(self.env_steps) != sorted(set(self.env_steps)):
            raise ValueError("the env-steps of a curve must ascend")
        return self


class Learning(_Facts):
    """What a config learned: figures of each training, and the curve of the first.

    `config` is its four numbers and, in a study of several, its learning rate.
    """

    config: tuple[Count, Count, Count, Count] | tuple[Count, Count, Count, Count, Figure]
    quality_score: tuple[Quality, ...] = Field(min_length=1, max_length=1000)
    acceptable: tuple[bool, ...]
    mean_return: Figures
    entropy: Figures
    curve: LearningCurve

    @model_validator(mode="after")
    def _require_equal_lengths(self) -> Self:
        figures = (self.quality_score, self.acceptable, self.mean_return, self.entropy)
        if len({len(figure) for figure in figures}) != 1:
            raise ValueError("learning must have one figure of each kind for each training")
        return self

    def is_of(self, config: HardwareConfig) -> bool:
        """Whether it is this config's; one without a learning rate may be of any."""
        *numbers, rate = (*self.config, None)[:5]
        return tuple(numbers) == tuple(config.as_dict().values()) and (
            config.learning_rate is None or rate == config.learning_rate
        )


class KeptLearning(_Facts):
    """What a study keeps of another: where it is from, its budget, its scale, and each config's.

    `references` are what the qualities were judged against; `environment` is what the environment
    told of itself, which must be the same here.
    """

    origin: str
    env_steps: Count
    references: QualityReferences
    environment: dict[str, Any]
    configs: tuple[Learning, ...] = Field(min_length=1, max_length=10_000)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return what a study keeps, None for one that has measured everything itself."""
        return None if facts.get(FACT) is None else cls.model_validate(facts[FACT])

    def learning_of(self, config: HardwareConfig) -> Learning | None:
        """Return what a config learned, None where that is not known or not of one rate alone."""
        found = [learning for learning in self.configs if learning.is_of(config)]
        return found[0] if len(found) == 1 else None

    def require_same(self, told: Mapping[str, Any], random_return: float) -> None:
        """Require the environment to be the one that was learned in, as far as can be seen.

        Args:
            told: what it tells of itself here.
            random_return: what the random policy returns here, by the same keys.

        Raises:
            UsageError: it tells or returns otherwise.
        """
        remedy = "add --learning measured, if that is meant"
        for key, before in self.environment.items():
            if told[key] != before:
                raise UsageError(
                    f"learning can be kept of an environment whose {key} is still {before}, but "
                    f"got {told[key]}; {remedy}"
                )
        before, error = self.references.random_return, self.references.random_se
        allowed = max(
            SURPRISING_SE * math.sqrt(2) * error, SURPRISING_SHARE * (self.references.scale or 0.0)
        )
        if abs(random_return - before) > allowed:
            raise UsageError(
                "learning can be kept of an environment in which the random policy still returns "
                f"{before:.5g} ± {error:.2g}, but got {random_return:.5g}; {remedy}"
            )

    def put_to(self, measurement: Measurement, config: HardwareConfig) -> Measurement:
        """Return a measurement that was timed only, with what its config learned then.

        Each measurement of the baseline gets a training of its own, as long as there are any, so
        that the spread over seeds stays; any other has the mean of its config's. The seconds of the
        kept curve are those that its env-steps take at the rate measured here.

        Raises:
            ValueError: nothing is known of what the config learned.
        """
        record, learning = measurement.record, self.learning_of(config)
        if learning is None:
            raise ValueError(f"what {config} learned must be known, but is not")
        if record.status != "success" or record.sps is None:
            return measurement
        has_own = record.trial == 0 and record.replicate < len(learning.quality_score)
        number = record.replicate if has_own else None
        share = _one_or_mean(learning.acceptable, number) or 0.0
        curve = _points(learning.curve, record.sps)
        trained = curve[-1].env_steps
        timed = (
            replace(p, block=p.block + len(curve), env_steps=p.env_steps + trained)
            for p in measurement.curve
        )
        first = record.steady_from_block
        return replace(
            measurement,
            record=replace(
                record,
                env_steps=trained,
                mean_return=_one_or_mean(learning.mean_return, number),
                entropy=_one_or_mean(learning.entropy, number),
                steady_from_block=None if first is None else first + len(curve),
            ),
            curve=(*curve, *timed),
            kept=EarlierVerdict(
                _one_or_mean(learning.quality_score, number),
                acceptable=share > 0.5,
                reason=f"{KEPT if has_own else MEAN_KEPT}{self.origin}",
            ),
        )


def is_same_learning(a: Profile, b: Profile) -> bool:
    """Whether two profiles' qualities rest on the same trainings: one kept those of the other."""
    first, other = _own(a), _own(b)
    return first is not None and first == other


def _own(profile: Profile) -> Any:
    """Return what a profile says that its own config learned, as it stands there."""
    told = profile.measured.get(MEASURED_KEY)
    numbers = list(hardware_config(profile).as_dict().values())
    entries = [e for e in told if isinstance(e, Mapping)] if isinstance(told, list) else []
    own = [e for e in entries if e.get("config") in (numbers, [*numbers, measured_rate(profile)])]
    return own[0] if own else None


def learnings(groups: Mapping[HardwareConfig, Sequence[TrialRecord]], read: Read) -> list[Any]:
    """Return what configs learned, as a profile holds it in `measured`.

    Args:
        groups: the measurements of each config, disturbed ones too: they learned no worse.
        read: returns the curve of a measurement.
    """
    found = []
    points = max(1, min(CURVE_POINTS, MOST_POINTS // max(1, len(groups))))
    for config, records in groups.items():
        told = [r for r in records if r.status == "success" and r.quality_score is not None]
        if not told:
            continue
        learning = Learning(
            config=tuple(config.params().values()),
            quality_score=tuple(r.quality_score for r in told),
            acceptable=tuple(bool(r.quality_acceptable) for r in told),
            mean_return=tuple(r.mean_return for r in told),
            entropy=tuple(r.entropy for r in told),
            curve=_curve([point for point in read(told[0]) if point.learning], points),
        )
        found.append(learning.model_dump(mode="json"))
    return found


def _curve(blocks: Sequence[CurvePoint], points: int) -> LearningCurve:
    count = min(points, len(blocks))
    shown = [blocks[(i + 1) * len(blocks) // count - 1] for i in range(count)]
    return LearningCurve(
        env_steps=tuple(p.env_steps for p in shown),
        mean_return=tuple(_rounded(p.metrics.get("mean_return")) for p in shown),
        entropy=tuple(_rounded(p.metrics.get("entropy")) for p in shown),
    )


def _points(curve: LearningCurve, sps: float) -> list[CurvePoint]:
    points, before = [], 0
    told = zip(curve.env_steps, curve.mean_return, curve.entropy, strict=True)
    for block, (env_steps, mean_return, entropy) in enumerate(told):
        seconds, before = (env_steps - before) / sps, env_steps
        metrics = {"mean_return": mean_return, "entropy": entropy}
        points.append(
            CurvePoint(block=block, env_steps=env_steps, seconds=seconds, metrics=metrics)
        )
    return points


def _one_or_mean(values: Sequence[float | None], number: int | None) -> float | None:
    if number is not None:
        return values[number]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
