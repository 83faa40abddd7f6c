"""What opens a study: chance, the budget, and the baseline that everything is compared with.

The references that come out of it are stored on the study and never move; which components the
score uses is decided here, once.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tuner.aggregate import is_copy
from tuner.errors import NothingFeasible, UsageError
from tuner.goal import TIME_TO_RETURN, objective_of
from tuner.measurement import Measurement, last_quarter, seconds_to
from tuner.outcome import Crashed, Interrupted, PredictedOutOfMemory, TimedOut
from tuner.protocol import MILESTONES, FitRequest, PreflightRequest, RandomRequest
from tuner.quality import QualityReferences
from tuner.references import References, diagnose, judge
from tuner.score import epsilon
from tuner.session import Session
from tuner.space import HardwareConfig
from tuner.throughput import MIN_REPLICATES, run_spread

RANDOM_SEEDS = (0, 1, 2)
BUDGET_BATCHES = 8
"""Default env-steps of a trial, in batches of the largest config that fits."""
MAX_DOUBLINGS = 2
TARGET_SHARE = 0.9
"""Share of a known optimum that `seconds_to_target` counts to."""


def check_traceable(session: Session) -> None:
    """Trace environment and update for every config that may be tried, before any is.

    Raises:
        UsageError: something cannot be traced; the message names the user's file and line.
    """
    config = session.config
    configs = config.space().shapes()
    if config.baseline is not None and config.baseline.shape not in configs:
        configs = [config.baseline.shape, *configs]
    answer = session.bench.ask(
        PreflightRequest(
            workload=config.workload(),
            configs=tuple(c.as_dict() for c in configs),
            cache_dir=str(config.compilation_cache().resolve()),
        )
    ).data
    session.say(
        f"preflight: environment and {answer['traced']} updates traced for {len(configs)} configs "
        f"in {answer['seconds']:.1f} s"
    )


@dataclass(frozen=True, slots=True)
class Chance:
    """What random actions return, and what the child told of the environment."""

    quality: QualityReferences
    per_step_return: bool
    obs_shape: tuple[int, ...]
    num_actions: int
    notes: tuple[str, ...]


def measure_chance(session: Session) -> Chance:
    """Measure the uniformly random policy over three seeds.

    Raises:
        UsageError: no episode of the environment ends within its own limit; or learning is kept,
            and the environment is another one than it was then.
    """
    workload = session.config.workload()
    cache = str(session.config.compilation_cache().resolve())
    answer = session.bench.ask(
        RandomRequest(workload=workload, seeds=RANDOM_SEEDS, cache_dir=cache)
    ).data
    for note in answer["notes"]:
        session.say(f"  {note}")
    returns = [value for value in answer["returns"] if value is not None]
    if len(returns) < len(RANDOM_SEEDS):
        raise UsageError(
            f"--env must be an environment whose episodes end, but got {workload.env}, none of "
            "whose episodes ended under random actions"
        )
    quality = QualityReferences(
        random_return=statistics.fmean(returns),
        random_se=_standard_error(returns),
        best_return=answer["best_return"],
        max_entropy=_max_entropy(answer),
        num_evaluations=len(MILESTONES) + 1 if session.at_milestones else 1,
    )
    if session.kept is not None:
        session.kept.require_same(answer, quality.random_return)
        quality = session.kept.references
    return Chance(
        quality,
        answer["per_step_return"],
        tuple(answer["obs_shape"]),
        answer["num_actions"],
        tuple(answer["notes"]),
    )


def _max_entropy(answer: Mapping[str, Any]) -> float | None:
    """Return that of discrete actions in nats; a Gaussian is judged by its width instead."""
    number = answer["num_actions"]
    return math.log(number) if answer["action_space"] == "discrete" and number > 1 else None


def budget_env_steps(session: Session) -> int:
    """Return the env-steps of every trial: 8 × the largest batch of the space that fits."""
    config = session.config
    if config.env_steps is not None:
        return config.env_steps
    fitting = _first_that_fits(session, _one_for_each_batch(config.space().configs()))
    if fitting is None:
        # The baseline, which is asked next, says so.
        return BUDGET_BATCHES * min(c.batch_size for c in config.space().configs())
    return BUDGET_BATCHES * fitting.batch_size


def measure_baseline(
    session: Session, chance: Chance, env_steps: int
) -> tuple[References, list[Measurement]]:
    """Measure the baseline's replicates and make the study's references from them.

    Where the best return is unknown and the baseline does not stand out from chance, the budget is
    doubled and the baseline measured again, at most twice and never when the user set it.

    Raises:
        UsageError: the baseline did not succeed; "try --baseline".
        NothingFeasible: it does not fit in memory, nor does anything smaller.
        KeyboardInterrupt: the user stopped the calibration.
    """
    may_double = session.config.env_steps is None and chance.quality.best_return is None
    baseline = _baseline_that_fits(session)
    if session.kept is not None and baseline != session.config.baseline:
        raise UsageError(
            f"the baseline must fit in memory for learning to be kept beside it, but of "
            f"{session.config.baseline} and what is smaller only {baseline} does; add --learning "
            "measured"
        )
    # What the learning rate is scaled from is what is measured, not what was wished.
    session.config = session.config.model_copy(update={"baseline": baseline})
    for doubling in range(MAX_DOUBLINGS + 1):
        measurements = _replicates(session, baseline, env_steps, known_target(chance))
        quality = _with_baseline(chance.quality, measurements)
        short = quality.best_return is None and not quality.baseline_learned
        if not short or not may_double or doubling == MAX_DOUBLINGS:
            break
        left_s = session.time_left_s()
        spent_s = sum(m.record.duration or 0.0 for m in measurements)
        if left_s is not None and left_s < 3 * spent_s:
            session.say("the budget is too short to train the baseline for longer")
            break
        env_steps *= 2
        session.say(
            f"the baseline does not stand out from chance: training for {env_steps:,} env-steps"
        )
    return _references(session, chance, quality, measurements, env_steps), measurements


def _baseline_that_fits(session: Session) -> HardwareConfig:
    """Return the baseline, or the largest smaller config of the space that fits, at its rate."""
    wanted = session.config.baseline
    if wanted is None:
        raise ValueError("a config must be resolved before its baseline is measured")
    configs = session.config.space().shapes()
    smaller = [c for c in configs if c.batch_size < wanted.batch_size]
    fitting = _first_that_fits(session, [wanted, *_one_for_each_batch(smaller)])
    if fitting is None:
        raise NothingFeasible(
            f"a config must fit in memory, but neither the baseline {wanted} nor a smaller config "
            "of the space does; raise --memory-limit, lower --reserve or choose a smaller space"
        )
    fitting = replace(fitting, learning_rate=wanted.learning_rate)
    if fitting != wanted:
        session.say(f"the baseline {wanted} does not fit in memory: using {fitting}")
    return fitting


def _one_for_each_batch(configs: Sequence[HardwareConfig]) -> list[HardwareConfig]:
    """Return the config of each batch size that needs the most memory, largest batch first."""
    chosen: dict[int, HardwareConfig] = {}
    for config in sorted(configs, key=_by_memory):
        chosen.setdefault(config.batch_size, config)
    return list(chosen.values())


def _by_memory(c: HardwareConfig) -> tuple[int, ...]:
    """Return what sorts configs by memory, the most first: batch, minibatch, environments."""
    return -c.batch_size, c.num_minibatches, -c.num_envs, c.num_epochs


def _first_that_fits(
    session: Session, candidates: Sequence[HardwareConfig]
) -> HardwareConfig | None:
    """Return the first that fits, without a learning rate."""
    config = session.config
    answer = session.bench.ask(
        FitRequest(
            workload=config.workload(),
            candidates=tuple(candidate.as_dict() for candidate in candidates),
            cache_dir=str(config.compilation_cache().resolve()),
            memory_limit_bytes=config.memory_limit,
            reserve_bytes=config.reserve,
        )
    )
    fitting = answer.data["hardware"]
    return None if fitting is None else HardwareConfig(**fitting)


def _replicates(
    session: Session, baseline: HardwareConfig, env_steps: int, target_return: float | None
) -> list[Measurement]:
    """Measure the baseline as often as wanted, and each disturbed measurement once more."""
    wanted = session.config.baseline_replicates
    measure = partial(_replicate, session, baseline, env_steps, target_return)
    measurements: list[Measurement] = []
    for number in range(wanted):
        session.say(f"baseline {baseline}, measurement {number + 1} of {wanted}")
        measurements.append(measure(len(measurements)))
        record = measurements[-1].record
        if session.wants_repeat(record):
            session.say(f"  disturbed ({record.contaminated}): measured once more")
            measurements.append(measure(len(measurements)))
            session.repeats.saw(measurements[-1].record)
    return measurements


def _clean(measurements: Sequence[Measurement], at_least: int = 1) -> list[Measurement]:
    """Return the undisturbed measurements, or all where there are fewer than `at_least`."""
    clean = [m for m in measurements if m.record.contaminated is None]
    return clean if len(clean) >= at_least else list(measurements)


def _replicate(
    session: Session,
    baseline: HardwareConfig,
    env_steps: int,
    target_return: float | None,
    number: int,
) -> Measurement:
    """Measure the baseline once; from the last wanted replicate on, with the probe beside it."""

    def measured() -> Measurement:
        return session.measure(
            baseline,
            trial=0,
            replicate=number,
            env_steps=env_steps,
            probe=number >= session.config.baseline_replicates - 1,
            target_return=target_return,
        )

    measurement = measured()
    if isinstance(measurement.outcome, Crashed):
        session.say(f"  crashed ({measurement.outcome.reason}): measured once more")
        measurement = measured()
    if measurement.outcome.status == "success":
        return measurement
    if isinstance(measurement.outcome, Interrupted):
        raise KeyboardInterrupt
    if isinstance(measurement.outcome, PredictedOutOfMemory):
        advice = "raise --memory-limit or try --baseline with fewer environments"
    elif isinstance(measurement.outcome, TimedOut):
        advice = "lower --env-steps, raise --timeout or try a quicker --baseline"
    else:
        advice = "try --baseline with another config, or another --learning-rate"
    raise UsageError(
        f"the baseline must train to its end, but {baseline} ended as "
        f"{measurement.outcome.status}: {measurement.outcome.reason}; {advice}"
    )


def _with_baseline(
    quality: QualityReferences, measurements: Sequence[Measurement]
) -> QualityReferences:
    evaluations = [m.evaluation for m in measurements if m.evaluation is not None]
    if len(evaluations) < len(measurements):
        return quality
    returns = [evaluation.mean_return for evaluation in evaluations]
    learned = [evaluation.learning_return(quality.random_return) for evaluation in evaluations]
    return replace(
        quality,
        baseline_return=statistics.fmean(returns),
        baseline_se=_standard_error(returns),
        baseline_learning=statistics.fmean(learned),
        baseline_learning_se=_standard_error(learned),
    )


def _standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))


def _references(
    session: Session,
    chance: Chance,
    quality: QualityReferences,
    measurements: Sequence[Measurement],
    env_steps: int,
) -> References:
    verdicts = [diagnose(m, quality) for m in measurements]
    for verdict in verdicts:
        if verdict["diagnosis"] == "diverged":
            raise UsageError(
                f"the baseline must learn without diverging, but got: {verdict['reason']} try "
                "--baseline with another config, or another --learning-rate"
            )
    unmeasured = next((v["reason"] for v in verdicts if v["quality_score"] is None), None)
    components = []
    if all(m.record.device_util is not None for m in measurements):
        components.append("gpu")
    if unmeasured is None:
        components.append("quality")
    components.append("sps")
    rates = [m.throughput.sps for m in _clean(measurements) if m.throughput is not None]
    # Disturbed processes differ more: an interval from them is wider, which is what they are worth.
    spreading = _clean(measurements, at_least=MIN_REPLICATES)
    references = References(
        quality=quality,
        quality_reason=None if unmeasured is None else f"too little data: {unmeasured}",
        components=tuple(components),
        weights=session.config.score_weights(),
        sps=statistics.fmean(rates),
        spread=run_spread([m.throughput for m in spreading if m.throughput is not None]),
        epsilon=None,
        # Seconds to a return are those of a training, and none was made where learning is kept.
        target_return=_target_return(chance, measurements) if session.kept is None else None,
        env_steps=env_steps,
    )
    if session.config.goal == TIME_TO_RETURN:
        references = replace(references, target_s=_target_s(references, measurements))
    judged = [judge(m, references) for m in _clean(measurements, at_least=2)]
    scores = [objective_of(record) for record in judged if not is_copy(record)]
    return replace(references, epsilon=epsilon([[s for s in scores if s is not None]]))


def known_target(chance: Chance) -> float | None:
    """Return 90 % of a known optimum per step, None where there is none."""
    best = chance.quality.best_return
    return TARGET_SHARE * best if chance.per_step_return and best is not None else None


def _target_return(chance: Chance, measurements: Sequence[Measurement]) -> float | None:
    """Return the known target, else what the baseline's training ended at."""
    if (known := known_target(chance)) is not None:
        return known
    tails = [v for m in measurements for v in last_quarter(m.curve, "mean_return")]
    return statistics.median(tails) if tails else None


def _target_s(references: References, measurements: Sequence[Measurement]) -> float:
    """Return the baseline's mean seconds to the target, or of its training if it never got there.

    Raises:
        UsageError: the target is no return that has to be learned.
    """
    target, chance = references.target_return, references.quality.random_return
    if target is None or target <= chance:
        got = "none, as no episode ended in its training" if target is None else f"{target:.4g}"
        raise UsageError(
            f"--goal {TIME_TO_RETURN} must have a target return above the random policy's, which "
            f"is {chance:.4g}, but got {got}; raise --env-steps or try another --baseline"
        )
    clean = _clean(measurements)
    reached = [s for m in clean if (s := seconds_to(m.curve, target)) is not None]
    trained = [sum(p.seconds for p in m.curve if p.learning) for m in clean]
    return statistics.fmean(reached or trained)
