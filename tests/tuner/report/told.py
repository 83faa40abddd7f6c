"""What a real trial told, recorded, and the notices of a study around it."""

from collections.abc import Sequence
from pathlib import Path

from storage.records import DeviceSample, TrialRecord
from tests.tuner.measurements import failure, record
from tuner.observer import Began, Heard, Notice, Opened, Stood
from tuner.protocol import Event, parse_event
from tuner.quality import QualityReferences
from tuner.references import References
from tuner.report.progress import Progress, advanced
from tuner.score import Weights
from tuner.space import HardwareConfig

EVENTS = [parse_event(line) for line in
          Path(__file__).with_name("trial_events.jsonl").read_bytes().splitlines()]  # fmt: skip
"""Of 16x16 mb2 ep2 on 16,384 env-steps, on a CPU; every fourth of its learning blocks."""
REFERENCES = References(
    quality=QualityReferences(random_return=0.0, random_se=0.1, best_return=1.0, max_entropy=None),
    quality_reason=None,
    components=("gpu", "quality", "sps"),
    weights=Weights(0.4, 0.4, 0.2),
    sps=100_000.0,
    spread=None,
    epsilon=0.01,
    target_return=None,
    env_steps=16384,
)
RECORDS = (
    record(0, duration=9.0),
    record(0, replicate=1, duration=9.0),
    record(1, duration=10.0, sps=150_000.0, final_score=0.612),
    record(2, duration=20.0),
    failure(3, "predicted_oom", duration=3.0),
)


def stood(
    records: Sequence[TrialRecord] = RECORDS,
    *,
    trials: int | None = 10,
    untried: int = 100,
    time_left_s: float | None = None,
    running: int = 0,
) -> Stood:
    """Return where a search stands; nothing but --trials 10 ends it soon."""
    return Stood(
        records=records,
        references=REFERENCES,
        trials=trials,
        untried=untried,
        time_left_s=time_left_s,
        running=running,
    )


def event(name: str) -> Event:
    """Return the last event of that name."""
    return next(e for e in reversed(EVENTS) if e.name == name)


def sampled() -> list[DeviceSample]:
    """Return samples every quarter of a second up to the last block."""
    end = event("block").t
    return [
        DeviceSample(t=end - 0.25 * number, util=80.0, memory_bytes=313_000_000)
        for number in reversed(range(12))
    ]


def notices(up_to: str) -> list[Notice]:
    """Return what a study tells until its sixth trial has sent the last event of a name."""
    last = EVENTS.index(event(up_to))
    began = Began(
        trial=5,
        replicate=0,
        config=HardwareConfig(16, 16, 2, 2),
        env_steps=16384,
        samples=sampled,
    )
    opened = Opened(study="demo", device="Some Processor", kind="cpu")
    return [opened, stood(), began, *(Heard(e) for e in EVENTS[: last + 1])]


def progress(up_to: str, *, more: Sequence[Notice] = ()) -> Progress:
    """Return where that study stands then."""
    started = EVENTS[0].t
    known = Progress(since=started - 300.0)
    for notice in (*notices(up_to), *more):
        known = advanced(known, notice, started)
    return known
