"""Where a running study stands, kept from what it tells: the state that the live view shows.

Apart from the view because it is plain data: it changes with every notice and with nothing else.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

from storage.records import DeviceSample, TrialRecord
from tuner.aggregate import ConfigSummary, summarise
from tuner.observer import Asked, Began, Heard, Kept, Notice, Opened, Stood
from tuner.outcome import Interrupted
from tuner.protocol import Event
from tuner.references import References
from tuner.report.reading import best_of
from tuner.space import HardwareConfig
from tuner.stopping import FINALISTS, counted

LEAST_TIMED = 2
"""Finished trials before the time that is left can be told."""
RECENT_S = 2.0
"""Samples that are older do not tell what the device does now."""
LEARNING, TIMING = "measuring, learning", "measuring"

_PHASES = {
    "started": "compiling",
    "compiled": "warm-up",
    "warm": LEARNING,
    "measured": "evaluating",
}
"""What a trial does after an event. Blocks past the budget, which nobody learns from, are timed
until the interval of the throughput is narrow: `TIMING`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The measurement that is running; times are monotonic seconds, memory is in bytes.

    `returns` are the training returns of its learning blocks as far as they were known, `rates`
    the env-steps per second of all blocks.
    """

    trial: int
    replicate: int
    config: HardwareConfig
    total_steps: int
    samples: Callable[[], Sequence[DeviceSample]]
    phase: str
    phase_since: float
    env_steps: int | None = None
    returns: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    predicted_bytes: int | None = None
    limit_bytes: int | None = None
    held_bytes: int | None = None

    @property
    def sps(self) -> float | None:
        """Env-steps per second, the median of the blocks so far."""
        return statistics.median(self.rates) if self.rates else None

    def recent(self, now: float) -> list[DeviceSample]:
        """Return the device's samples of the last `RECENT_S`, the latest first."""
        return list(takewhile(lambda s: s.t >= now - RECENT_S, reversed(self.samples())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """How long a study still takes, by the mean of its finished trials.

    `seconds` counts from the monotonic time `at`, the finalists' measurements included; `after_s`
    of it come after the trial that began then. `until` is what ends the search.
    """

    seconds: float
    after_s: float
    at: float
    until: str
    num_timed: int

    def left_s(self, now: float) -> float:
        """Return the seconds that are left; a trial longer than the mean holds them up."""
        return max(self.after_s, self.seconds - (now - self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is known of a running study; `None` or empty where nothing has been told yet.

    `records` are in the order in which they came, those of a resumed study in that of its table.
    """

    since: float
    study: str | None = None
    device: str | None = None
    device_kind: str | None = None
    question: str | None = None
    running: Running | None = None
    stood: Stood | None = None
    estimate: Estimate | None = None
    records: dict[tuple[int, int], TrialRecord] = field(default_factory=dict)
    best: ConfigSummary | None = None
    baseline: ConfigSummary | None = None


def advanced(progress: Progress, notice: Notice, now: float) -> Progress:
    """Return where a study stands after a notice that came at the monotonic time `now`."""
    match notice:
        case Opened():
            return replace(
                progress, study=notice.study, device=notice.device, device_kind=notice.kind
            )
        case Asked():
            return replace(progress, question=notice.question, running=None)
        case Began():
            running = Running(
                trial=notice.trial,
                replicate=notice.replicate,
                config=notice.config,
                total_steps=notice.env_steps,
                samples=notice.samples,
                phase="starting",
                phase_since=now,
            )
            return replace(progress, question=None, running=running)
        case Heard():
            if progress.running is None:
                return progress
            return replace(progress, running=_heard(progress.running, notice.event))
        case Kept():
            kept = replace(progress, running=None)
            references = None if progress.stood is None else progress.stood.references
            return _with_records(kept, [notice.record], references)
        case Stood():
            stood = replace(progress, stood=notice, estimate=estimate(notice, now))
            return _with_records(stood, notice.records, notice.references)


def estimate(stood: Stood, at: float) -> Estimate | None:
    """Return how long a study takes from `at` on, None until `LEAST_TIMED` trials have finished.

    A trial costs the mean of those before it, the repeats of disturbed ones included; those of
    other workers go on side by side. The search ends with the trials that are wanted, the space or
    the budget, whichever comes first: that it may end for want of gain is not foreseen.
    """
    searched = [r for r in stood.records if r.trial > 0 and r.status != Interrupted.status]
    disturbed = {r.trial for r in searched if r.replicate == 0 and r.contaminated is not None}
    cost_s = sum(
        r.duration or 0.0
        for r in searched
        if r.replicate == 0 or (r.replicate == 1 and r.trial in disturbed)
    )
    num_tried = sum(r.replicate == 0 for r in searched)
    if num_tried < LEAST_TIMED:
        return None
    at_once = 1 + stood.running
    left = stood.untried + stood.running
    search_s, until = left * cost_s / num_tried / at_once, "the whole space"
    num_counted = len(counted(searched))
    if stood.trials is not None and num_counted:
        wanted = max(0, stood.trials - len(counted(stood.records)))
        wanted_s = wanted * cost_s / num_counted / at_once
        if wanted_s < search_s:
            search_s, until = wanted_s, f"--trials {stood.trials}"
    ran = [r.duration for r in searched if r.status == "success" and r.duration is not None]
    seconds = search_s + FINALISTS * (statistics.fmean(ran) if ran else 0.0)
    after_s = max(0.0, seconds - cost_s / num_tried) if search_s else 0.0
    if stood.time_left_s is not None and stood.time_left_s < seconds:
        seconds, after_s, until = max(0.0, stood.time_left_s), 0.0, "--budget"
    return Estimate(seconds=seconds, after_s=after_s, at=at, until=until, num_timed=num_tried)


def _heard(running: Running, event: Event) -> Running:
    """Return the measurement after an event of its process."""
    if event.name == "block":
        return _after_block(running, event)
    if event.name == "compiled":
        running = replace(
            running,
            predicted_bytes=event.data["predicted_bytes"],
            limit_bytes=event.data["limit_bytes"],
        )
    phase = _PHASES.get(event.name)
    return running if phase is None else replace(running, phase=phase, phase_since=event.t)


def _after_block(running: Running, block: Event) -> Running:
    data = block.data
    value, learning = data["metrics"].get("mean_return"), data["learning"]
    is_timing = not learning and running.phase != TIMING
    return replace(
        running,
        phase=running.phase if learning else TIMING,
        phase_since=block.t - data["seconds"] if is_timing else running.phase_since,
        env_steps=data["env_steps"] if learning else running.env_steps,
        returns=running.returns if value is None or not learning else (*running.returns, value),
        rates=(*running.rates, data["block_env_steps"] / data["seconds"]),
        held_bytes=data["held_bytes"],
    )


def _with_records(
    progress: Progress, records: Sequence[TrialRecord], references: References | None
) -> Progress:
    """Return where a study stands with more records, or other versions of those it had."""
    known = progress.records | {(r.trial, r.replicate): r for r in records}
    summaries = summarise(known.values(), with_intervals=False)
    return replace(
        progress,
        records=known,
        best=best_of(summaries, references),
        baseline=next((s for s in summaries if s.trial == 0), None),
    )
