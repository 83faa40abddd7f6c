"""From measurements to configs: one summary for each config, over its replicates.

Apart from the records because best, front and profiles compare configs, not measurements, and
must all leave out the same contaminated ones.
"""

import math
import operator
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from storage.records import INFEASIBLE_STATUSES, TrialRecord
from tuner.contamination import is_noisy
from tuner.goal import objective_of
from tuner.space import DIMENSIONS, LEARNING_RATE, HardwareConfig
from tuner.throughput import MIN_REPLICATES, student_t

NUMBERS = operator.attrgetter(*DIMENSIONS, LEARNING_RATE)
"""Takes the four numbers of a config and its learning rate from whatever has them, as a tuple."""
MEAN_KEPT = "the mean of what was kept from "
"""What the reason of a quality begins with that several records of a config have alike."""
MEANS = (
    "device_util",
    "gpu_util",
    "peak_memory_gb",
    "mean_return",
    "entropy",
    "gpu_score",
    "quality_score",
    "sps_score",
    "final_score",
    "goal_score",
    "seconds_to_target",
    "sps",
    "joules_per_msteps",
)
"""The fields of a record that a summary has as means over the measurements that count."""
SUMMARISED = (
    "trial",
    "replicate",
    *DIMENSIONS,
    LEARNING_RATE,
    "status",
    "contaminated",
    "quality_acceptable",
    "quality_reason",
    "util_source",
    "bound",
    "env_steps",
    "predicted_memory_gb",
    "memory_limit_gb",
    *MEANS,
)
"""The fields of a record that `summarise` reads, but for the intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSummary:
    """What is known of one config; means over the measurements that count, `None` if unknown.

    Successful clean measurements count; contaminated ones only while there is no clean one, which
    `contaminated` then says. `replicates` is their number, `failures` that of measurements that
    ended infeasible (out of memory, diverged, timed out). `status` is `success` as soon as one
    succeeded, else that of the last. Units as in `TrialRecord`; a field that ends in `_sd` is the
    sample standard deviation over at least two measurements. `seconds_to_target` is the mean over
    those that reached the target return.
    """

    config: HardwareConfig
    trial: int
    replicates: int
    failures: int
    status: str
    contaminated: bool
    eligible: bool
    ineligible_reason: str | None
    quality_acceptable: bool | None
    device_util: float | None
    gpu_util: float | None
    util_source: str | None
    peak_memory_gb: float | None
    predicted_memory_gb: float | None
    memory_limit_gb: float | None
    mean_return: float | None
    entropy: float | None
    gpu_score: float | None
    quality_score: float | None
    quality_score_sd: float | None
    sps_score: float | None
    final_score: float | None
    goal_score: float | None
    seconds_to_target: float | None
    sps: float | None
    sps_ci95: tuple[float, float] | None
    bound: str | None
    joules_per_msteps: float | None
    env_steps: int | None


def summarise(
    records: Iterable[TrialRecord], *, with_intervals: bool = True
) -> list[ConfigSummary]:
    """Return one summary for each config, in the order of their trials.

    Args:
        records: a study's measurements, of any status, in any order. A config that was queued
            again after a crash may appear under several trials; `trial` is the first that counts.
        with_intervals: whether `sps_ci95` is known; it imports scipy and takes a third of the time.
    """
    by_config: dict[HardwareConfig, list[TrialRecord]] = {}
    ordered = sorted(records, key=lambda r: (r.trial, r.replicate))
    for record in ordered:
        by_config.setdefault(hardware_of(record), []).append(record)
    summaries = [_summarise_config(config, group) for config, group in by_config.items()]
    if with_intervals:
        spread = observed_spread(by_config.values(), with_disturbed=is_noisy(ordered))
        summaries = [
            replace(summary, sps_ci95=_interval(that_count(by_config[summary.config]), spread))
            for summary in summaries
        ]
    return sorted(summaries, key=lambda summary: summary.trial)


def objectives(records: Iterable[TrialRecord]) -> dict[tuple[float | None, ...], float | None]:
    """Return `objective_of` what `summarise` says of each config, by the config's `NUMBERS`.

    None of a config whose learning is not acceptable: it is no profile, however well it scores. A
    search asks before every trial, so nothing else is computed and no config is made.
    """
    by_config: dict[tuple[float | None, ...], list[TrialRecord]] = {}
    for record in records:
        by_config.setdefault(NUMBERS(record), []).append(record)
    return {config: _objective_of_group(group) for config, group in by_config.items()}


def hardware_of(record: TrialRecord) -> HardwareConfig:
    """Return the config that a record is of."""
    return HardwareConfig(*NUMBERS(record))


def combine_intervals(records: Sequence[TrialRecord]) -> tuple[float, float] | None:
    """Return the 95 % interval for the SPS of a fresh process, around the mean of replicates.

    A record's interval has half-width h with h² = t² · 2V: its own variance and that of the
    process to come. The mean of n records varies by less, so that theirs combine to
    √(Σ h_i² / 2n · (1 + 1/n)), which is h for one. Their critical value is kept: all of them rest
    on the same few replicates of the baseline. Where some have no interval, three or more
    replicates give t(n − 1) · s · √(1 + 1/n) by themselves, each being a fresh process.

    Returns:
        Low and high, env-steps per second; `None` where neither is possible.
    """
    rates = [record.sps for record in records if record.sps is not None]
    intervals = [record.sps_ci95 for record in records if record.sps_ci95 is not None]
    if not rates:
        return None
    if len(intervals) == len(rates) == len(records):
        # A low end cut at 0 makes an interval lopsided: the wider half is the true one.
        half_widths = [
            max(high - sps, sps - low) for sps, (low, high) in zip(rates, intervals, strict=True)
        ]
        half_width = math.hypot(*half_widths) * math.sqrt((1 + 1 / len(rates)) / (2 * len(rates)))
    elif len(rates) >= MIN_REPLICATES:
        half_width = (
            student_t(len(rates) - 1) * statistics.stdev(rates) * math.sqrt(1 + 1 / len(rates))
        )
    else:
        return None
    mean = statistics.fmean(rates)
    return max(0.0, mean - half_width), mean + half_width


def observed_spread(
    groups: Iterable[Sequence[TrialRecord]], *, with_disturbed: bool
) -> tuple[float, int] | None:
    """Return how much the SPS of one config varied over a study.

    The baseline's replicates follow each other within a minute. A finalist is measured again at the
    end of the study, and what a machine's speed wanders meanwhile shows there alone.

    Args:
        groups: the measurements of each config.
        with_disturbed: whether disturbed measurements count as well; in a noisy study they must.

    Returns:
        The relative standard deviation of one measurement, pooled over the configs measured more
        than once, and its degrees of freedom; `None` where there is no such config.
    """
    total, dof = 0.0, 0
    for group in groups:
        if len(group) < 2:
            continue
        rates = [
            r.sps
            for r in group
            if r.status == "success"
            and r.sps is not None
            and (with_disturbed or r.contaminated is None)
        ]
        if len(rates) >= 2:
            total += statistics.variance(rates) / statistics.fmean(rates) ** 2 * (len(rates) - 1)
            dof += len(rates) - 1
    return (math.sqrt(total / dof), dof) if dof else None


def _interval(
    counted: Sequence[TrialRecord], spread: tuple[float, int] | None
) -> tuple[float, float] | None:
    """Return a config's interval, at least as wide as the study's measurements vary."""
    combined, sps = combine_intervals(counted), _mean(counted, "sps")
    if spread is None or sps is None:
        return combined
    deviation, dof = spread
    if dof < MIN_REPLICATES - 1:
        return combined
    half_width = student_t(dof) * deviation * math.sqrt(1 + 1 / len(counted)) * sps
    low, high = combined or (sps, sps)
    return max(0.0, min(low, sps - half_width)), max(high, sps + half_width)


def is_copy(record: TrialRecord) -> bool:
    """Whether a record's learning is that of other records of its config: no further seed."""
    return (record.quality_reason or "").startswith(MEAN_KEPT)


def that_count(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the measurements of a config that count: the clean successes, else all successes."""
    successes = [record for record in records if record.status == "success"]
    return [record for record in successes if not record.contaminated] or successes


def _summarise_config(config: HardwareConfig, records: Sequence[TrialRecord]) -> ConfigSummary:
    """Summarise one config, but for its interval."""
    counted = that_count(records)
    failures = [record for record in records if record.status in INFEASIBLE_STATUSES]
    acceptable = _is_acceptable(counted, failures)
    reason = _why_ineligible(counted, failures, acceptable)
    return ConfigSummary(
        config=config,
        trial=(counted or records)[0].trial,
        replicates=len(counted),
        failures=len(failures),
        status="success" if counted else records[-1].status,
        contaminated=bool(counted) and bool(counted[0].contaminated),
        eligible=reason is None,
        ineligible_reason=reason,
        quality_acceptable=acceptable,
        util_source=counted[0].util_source if counted else None,
        # Known before a trial runs, so also for configs that never did.
        predicted_memory_gb=_mean(counted or records, "predicted_memory_gb"),
        memory_limit_gb=_mean(counted or records, "memory_limit_gb"),
        quality_score_sd=_deviation([r for r in counted if not is_copy(r)], "quality_score"),
        sps_ci95=None,
        bound=_most_common([r.bound for r in counted if r.bound is not None]),
        env_steps=counted[0].env_steps if counted else None,
        **{name: _mean(counted, name) for name in MEANS},
    )


def _is_acceptable(counted: Sequence[TrialRecord], failures: Sequence[TrialRecord]) -> bool | None:
    """Return the verdict of the strict majority of measurements that have one.

    Each counts one seed. A replicate that diverged has a verdict too; a tie is not acceptable,
    because a config that fails for every other seed cannot be trusted with a long training.
    """
    verdicts = [r.quality_acceptable for r in counted if r.quality_acceptable is not None]
    if not verdicts:
        return None
    diverged = sum(record.status == "diverged" for record in failures)
    return 2 * sum(verdicts) > len(verdicts) + diverged


def _why_ineligible(
    counted: Sequence[TrialRecord], failures: Sequence[TrialRecord], acceptable: bool | None
) -> str | None:
    """Return why the config may not become a profile, or `None` when it may."""
    if not counted:
        return "no measurement of it succeeded"
    if len(failures) >= len(counted):
        return f"it failed as often ({len(failures)}) as it succeeded ({len(counted)})"
    if acceptable is None:
        return "its learning quality was not measured"
    if not acceptable:
        return next(
            (
                r.quality_reason
                for r in counted
                if r.quality_acceptable is False and r.quality_reason
            ),
            "its learning is not acceptable",
        )
    if _mean(counted, "final_score") is None:
        return "a component of its score was not measured"
    return None


def _values(records: Sequence[TrialRecord], name: str) -> list[float]:
    return [value for record in records if (value := getattr(record, name)) is not None]


def _most_common(names: Sequence[str]) -> str | None:
    if len(names) < 2:
        return names[0] if names else None
    return statistics.mode(names)


def _mean(records: Sequence[TrialRecord], name: str) -> float | None:
    if len(records) == 1:  # nearly every config, and a mean takes its time
        value = getattr(records[0], name)
        return None if value is None else float(value)
    values = _values(records, name)
    return statistics.fmean(values) if values else None


def _objective_of_group(records: Sequence[TrialRecord]) -> float | None:
    counted = that_count(records)
    failures = [record for record in records if record.status in INFEASIBLE_STATUSES]
    return None if _is_acceptable(counted, failures) is False else _objective(counted)


def _objective(records: Sequence[TrialRecord]) -> float | None:
    if len(records) == 1:
        return objective_of(records[0])
    known = _mean(records, "goal_score")
    return _mean(records, "final_score") if known is None else known


def _deviation(records: Sequence[TrialRecord], name: str) -> float | None:
    if len(records) < 2:
        return None
    values = _values(records, name)
    return statistics.stdev(values) if len(values) >= 2 else None
