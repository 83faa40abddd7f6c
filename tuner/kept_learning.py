"""What configs learned in an earlier study: kept by a transfer that times them on another device.

Apart from the transfer because a session puts it to every measurement, and every export writes it
down for the next. What a config learns is the algorithm's and the environment's, not the device's:
another one rounds otherwise, which is another seed at most. Speed, memory and utilisation are never
kept.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, model_validator

from storage.profile import Profile
from storage.records import CurvePoint, TrialRecord
from tuner.measurement import Kept, Measurement
from tuner.quality import QualityReferences
from tuner.space import HardwareConfig
from tuner.workload import hardware_config, measured_rate

FACT = "kept_learning"
"""The fact of a study, and what it measures only beside."""
MEASURED_KEY = "learning"
"""The key in a profile's `measured`: a list of `Learning`, of the front and the baseline."""
CURVE_POINTS = 16
"""Points of a curve that travel in a profile; a training has at most 32 blocks."""
DIGITS = 5
REASON = "kept from "
"""What the reason of a kept quality begins with."""

Quality = Annotated[float, Field(ge=0, le=1)]
Read = Callable[[TrialRecord], Sequence[CurvePoint]]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LearningCurve(_Facts):
    """Mean return and entropy (nats) of blocks of a training, by the env-steps at their end."""

    env_steps: tuple[PositiveInt, ...]
    mean_return: tuple[FiniteFloat | None, ...]
    entropy: tuple[FiniteFloat | None, ...]

    @model_validator(mode="after")
    def _require_equal_lengths(self) -> Self:
        if not len(self.env_steps) == len(self.mean_return) == len(self.entropy):
            raise ValueError("a curve must have as many returns and entropies as env-steps")
        if list(self.env_steps) != sorted(set(self.env_steps)):
            raise ValueError("the env-steps of a curve must ascend")
        return self


class Learning(_Facts):
    """What a config learned: figures of each training that counted, and the curve of the first."""

    config: tuple[float, ...] = Field(min_length=4, max_length=5)
    quality_score: tuple[Quality, ...] = Field(min_length=1)
    acceptable: tuple[bool, ...] = Field(min_length=1)
    mean_return: tuple[FiniteFloat, ...] = Field(min_length=1)
    entropy: tuple[FiniteFloat | None, ...] = Field(min_length=1)
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
    env_steps: PositiveInt
    references: QualityReferences
    environment: dict[str, Any]
    configs: tuple[Learning, ...]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return what a study keeps, None for one that has measured everything itself."""
        return None if facts.get(FACT) is None else cls.model_validate(facts[FACT])

    def learning_of(self, config: HardwareConfig) -> Learning | None:
        """Return what a config learned, None where that is not known or not of one rate alone."""
        found = [learning for learning in self.configs if learning.is_of(config)]
        return found[0] if len(found) == 1 else None

    def put_to(self, measurement: Measurement, config: HardwareConfig) -> Measurement:
        """Return a measurement that was timed only, with what its config learned then.

        Each replicate of the baseline gets another training, so that its spread over seeds stays;
        any other config has the mean of its trainings every time. The seconds of the kept curve
        are those that its env-steps take at the rate measured here.

        Raises:
            ValueError: nothing is known of what the config learned.
        """
        record, learning = measurement.record, self.learning_of(config)
        if learning is None:
            raise ValueError(f"what {config} learned must be known, but is not")
        if record.status != "success" or record.sps is None:
            return measurement
        of_one = record.replicate if record.trial == 0 else None
        share = _one_or_mean(learning.acceptable, of_one) or 0.0
        kept = _points(learning.curve, record.sps)
        last, blocks = (kept[-1].env_steps, len(kept)) if kept else (0, 0)
        timed = (
            replace(p, block=p.block + blocks, env_steps=p.env_steps + last)
            for p in measurement.curve
        )
        return replace(
            measurement,
            record=replace(
                record,
                env_steps=self.env_steps,
                mean_return=_one_or_mean(learning.mean_return, of_one),
                entropy=_one_or_mean(learning.entropy, of_one),
            ),
            curve=(*kept, *timed),
            kept=Kept(
                _one_or_mean(learning.quality_score, of_one),
                acceptable=share > 0.5,
                reason=f"{REASON}{self.origin}",
            ),
        )


def is_copy(record: TrialRecord) -> bool:
    """Whether a record's learning is that of other records of its config too: no second seed."""
    return record.trial != 0 and (record.quality_reason or "").startswith(REASON)


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
        groups: the measurements of each config that count.
        read: returns the curve of a measurement.
    """
    found = []
    for config, records in groups.items():
        told = [r for r in records if r.quality_score is not None and r.mean_return is not None]
        if not told:
            continue
        learning = Learning(
            config=tuple(config.params().values()),
            quality_score=tuple(r.quality_score for r in told),
            acceptable=tuple(bool(r.quality_acceptable) for r in told),
            mean_return=tuple(r.mean_return for r in told),
            entropy=tuple(r.entropy for r in told),
            curve=_curve([point for point in read(told[0]) if point.learning]),
        )
        found.append(learning.model_dump(mode="json"))
    return found


def _curve(blocks: Sequence[CurvePoint]) -> LearningCurve:
    count = min(CURVE_POINTS, len(blocks))
    points = [blocks[(i + 1) * len(blocks) // count - 1] for i in range(count)]
    return LearningCurve(
        env_steps=tuple(p.env_steps for p in points),
        mean_return=tuple(_rounded(p.metrics.get("mean_return")) for p in points),
        entropy=tuple(_rounded(p.metrics.get("entropy")) for p in points),
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
        return values[number % len(values)]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
