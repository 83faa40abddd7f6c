"""Profiles side by side: which of them is faster or learns better, as far as that can be told.

Apart from validation, which measures again: here nothing is measured, and what two profiles say of
themselves, or the repeats in their studies, must be enough. A throughput is compared by its ratio,
whose interval is Fieller's (1954), a quality by its difference.
"""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeGuard

from storage.errors import StorageError
from storage.profile import Profile
from storage.records import TrialRecord
from storage.telemetry import Telemetry
from tuner.aggregate import ConfigSummary, hardware_of, is_copy, observed_spread, summarise
from tuner.comparability import Differences, differences, figure, is_same_study
from tuner.config import PlaceSettings
from tuner.contamination import is_noisy
from tuner.drift import BASELINE_DOF, promised_spread
from tuner.errors import TunerError, UsageError
from tuner.kept_learning import TRAININGS, is_same_learning
from tuner.lookup import require_name
from tuner.profile_sources import Source, resolve
from tuner.space import HardwareConfig
from tuner.throughput import student_t
from tuner.workload import hardware_config, is_of, measured_rate

Verdict = Literal["higher", "lower", "cannot be told apart", "same", "not comparable", "unknown"]
FEWEST_DOF = 2
"""Degrees of freedom below which a study's repeats say less than the profile's own interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One figure against the first profile's: a ratio or a difference, and its 95 % interval.

    `high` is None where the first is too uncertain for the ratio to have an upper end, both ends
    where no spread is known. `reason` says why there is no verdict, if there is none.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Half-widths of the 95 % intervals of a profile's own figures; None where unknown.

    That of `sps` is relative. `rests_on` names what they come from.
    """

    sps: float | None
    quality: float | None
    rests_on: Literal["repeats", "profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """One profile against the first: what differs, and what can be told of the two."""

    source: Source
    differences: Differences
    throughput: Contrast
    quality: Contrast


@dataclass(frozen=True, slots=True)
class Comparison:
    """Profiles in the order given, and every later one against the first."""

    sources: tuple[Source, ...]
    errors: tuple[Errors, ...]
    against_first: tuple[Against, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the document of `tuner compare --json`."""
        document = {
            "profiles": [
                {
                    "name": source.name,
                    "file": str(source.path),
                    **source.profile.as_dict(),
                    "half_widths_95": asdict(errors),
                }
                for source, errors in zip(self.sources, self.errors, strict=True)
            ],
            "comparisons": [
                {
                    "profile": against.source.name,
                    "against": self.sources[0].name,
                    "differences": against.differences.as_dict(),
                    "throughput_ratio": asdict(against.throughput),
                    "quality_difference": asdict(against.quality),
                }
                for against in self.against_first
            ],
        }
        # A file from anyone may hold NaN, which JSON does not have.
        plain: dict[str, Any] = json.loads(json.dumps(document), parse_constant=lambda _: None)
        return plain


def compare(arguments: Iterable[str], runs_dir: Path) -> Comparison:
    """Put profiles side by side.

    Args:
        arguments: files or names, see `tuner.profile_sources.resolve`.
        runs_dir: folder of all studies; one that lies there lends its repeats to its profiles.

    Raises:
        UsageError: there are fewer than two profiles, or one is not there.
        InvalidProfile: a file is no profile.
    """
    named = [source for argument in arguments for source in resolve(argument, runs_dir)]
    sources = tuple({source.path.resolve(): source for source in reversed(named)}.values())[::-1]
    if len(sources) < 2:
        raise UsageError(
            "at least two different profiles must be named to be compared, but got "
            f"{len(sources)}; add another, or name a study for its three"
        )
    errors = tuple(errors_of(source.profile, runs_dir) for source in sources)
    first, own = sources[0], errors[0]
    return Comparison(
        sources,
        errors,
        tuple(
            _against(first, own, source, errors_of_it)
            for source, errors_of_it in zip(sources[1:], errors[1:], strict=True)
        ),
    )


def errors_of(profile: Profile, runs_dir: Path) -> Errors:
    """Return how well a profile's figures are known.

    From the repeats in its study where that is at hand and still says what the profile says: the
    spread of one measurement, pooled over all configs measured more than once, over √n for the n
    measurements behind the profile. Else from the profile: its interval is for one more process,
    √(n + 1) wider than the figure's own, and its `quality_sd` is that of the baseline's seeds.
    """
    records = _records_of(profile, runs_dir)
    summary = _summary_of(profile, records)
    groups = _groups(records)
    spread = observed_spread(groups, with_disturbed=is_noisy(records))
    if summary is not None and spread is not None and spread[1] >= FEWEST_DOF:
        deviation, dof = _quality_spread(groups) or (None, 0)
        return Errors(
            sps=_half_width(*spread, summary.replicates),
            quality=_half_width(deviation, dof, _trainings(profile) or summary.replicates),
            rests_on="repeats",
        )
    is_told = profile.measured.get("replicates") is not None
    count = (figure(profile.measured, "replicates") or 0.0) if is_told else 1.0
    is_known = _is_positive(profile.expected_sps) and profile.expected_sps_ci95 is not None
    return Errors(
        sps=promised_spread(profile) if is_known and count >= 1 else None,
        quality=_half_width(
            figure(profile.measured, "quality_sd"), BASELINE_DOF, _trainings(profile) or count
        ),
        rests_on="profile",
    )


def _trainings(profile: Profile) -> float | None:
    """Return how many trainings are behind a quality that was kept, None where it was not."""
    return figure(profile.measured, TRAININGS)


def ratio_of(
    sps: float, error: float | None, first_sps: float, first_error: float | None
) -> Contrast:
    """Return the ratio of two throughputs with Fieller's interval.

    With relative 95 % half-widths a of the one and b of the first, independent of each other, it is
    r · (1 ± √(a² + b² − a²b²)) / (1 − b²), which holds 1 just where the two differ by no more than
    √((a·sps)² + (b·first)²). With b ≥ 1 the first may be 0: there is no upper end.

    Args:
        sps: env-steps per second, above 0.
        error: a; None where unknown.
        first_sps: env-steps per second of the first, above 0.
        first_error: b; None where unknown.
    """
    ratio = sps / first_sps
    if error is None or first_error is None:
        return Contrast(value=ratio, verdict="unknown", reason="no interval was recorded")
    if first_error >= 1:
        return Contrast(value=ratio, low=0.0, verdict="cannot be told apart")
    width = math.sqrt(max(0.0, error**2 + first_error**2 - (error * first_error) ** 2))
    scale = ratio / (1 - first_error**2)
    low, high = max(0.0, scale * (1 - width)), scale * (1 + width)
    return Contrast(value=ratio, low=low, high=high, verdict=_verdict(low, high, equal=1.0))


def difference_of(
    quality: float, error: float | None, first: float, first_error: float | None
) -> Contrast:
    """Return the difference of two qualities; its half-width is √(a² + b²) of theirs."""
    value = quality - first
    if error is None or first_error is None:
        return Contrast(value=value, verdict="unknown", reason="no spread over seeds is known")
    width = math.hypot(error, first_error)
    low, high = value - width, value + width
    return Contrast(value=value, low=low, high=high, verdict=_verdict(low, high, equal=0.0))


def _against(first: Source, own: Errors, other: Source, errors: Errors) -> Against:
    found = differences(first, other)
    a, b = first.profile, other.profile
    if is_same_measurement(first, other, found):
        same = Contrast(verdict="same", reason="they rest on the same measurements")
        return Against(source=other, differences=found, throughput=same, quality=same)
    throughput = _not_comparable(found.speed_reason)
    if throughput is None:
        throughput = (
            ratio_of(b.expected_sps, errors.sps, a.expected_sps, own.sps)
            if _is_positive(a.expected_sps) and _is_positive(b.expected_sps)
            else Contrast(verdict="unknown", reason="not measured")
        )
    quality = _not_comparable(found.quality_reason)
    if quality is None and is_same_learning(a, b):
        quality = Contrast(verdict="same", reason="it was kept: they rest on the same trainings")
    if quality is None:
        quality = (
            difference_of(b.quality_score, errors.quality, a.quality_score, own.quality)
            if a.quality_score is not None and b.quality_score is not None
            else Contrast(verdict="unknown", reason="not measured")
        )
    return Against(source=other, differences=found, throughput=throughput, quality=quality)


def _not_comparable(reason: str | None) -> Contrast | None:
    return None if reason is None else Contrast(verdict="not comparable", reason=reason)


def _is_positive(value: float | None) -> TypeGuard[float]:
    return value is not None and value > 0


def _verdict(low: float, high: float, *, equal: float) -> Verdict:
    if low > equal:
        return "higher"
    return "lower" if high < equal else "cannot be told apart"


def is_same_measurement(first: Source, other: Source, found: Differences) -> bool:
    """Whether two profiles rest on the same measurements, in whole or, exported later, in part."""
    a, b = first.profile, other.profile
    if hardware_config(a) != hardware_config(b) or found.hardware or found.workload:
        return False
    if measured_rate(a) != measured_rate(b):
        return False
    is_equal = a.expected_sps is not None and a.expected_sps == b.expected_sps
    return is_equal or is_same_study(first, other)


def _records_of(profile: Profile, runs_dir: Path) -> list[TrialRecord]:
    """Return the measurements of a profile's study, none where it is not under the runs folder."""
    name = profile.measured.get("study")
    if not isinstance(name, str):
        return []
    try:
        require_name(name, may_be_group=True)
        with Telemetry(PlaceSettings(runs_dir=runs_dir).storage_url(name), create=False) as table:
            return table.records(name)
    except (StorageError, TunerError):
        return []


def _summary_of(profile: Profile, records: Sequence[TrialRecord]) -> ConfigSummary | None:
    """Return what a study says of a profile's config, None unless it is what the profile says.

    Another study may have the name, and a profile may be an earlier version.
    """
    summaries = summarise(records, with_intervals=False)
    found = next((s for s in summaries if is_of(profile, s.config)), None)
    if found is None or found.sps is None or profile.expected_sps is None:
        return None
    if found.contaminated and not is_noisy(records):
        return None  # the spread is that of undisturbed measurements
    return found if math.isclose(found.sps, profile.expected_sps, rel_tol=1e-9) else None


def _groups(records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    groups: dict[HardwareConfig, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(hardware_of(record), []).append(record)
    return list(groups.values())


def _quality_spread(groups: Iterable[Sequence[TrialRecord]]) -> tuple[float, int] | None:
    """Return the standard deviation of one quality over seeds, pooled, and degrees of freedom."""
    scores = [
        [r.quality_score for r in group if r.quality_score is not None and not is_copy(r)]
        for group in groups
    ]
    repeated = [group for group in scores if len(group) >= 2]
    dof = sum(len(group) - 1 for group in repeated)
    if dof == 0:
        return None
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in repeated)
    return math.sqrt(squares / dof), dof


def _half_width(deviation: float | None, dof: int, count: float) -> float | None:
    """Return that of the mean of `count` measurements, None where their spread is unknown."""
    if deviation is None or deviation < 0 or count < 1 or dof < 1:
        return None
    return student_t(dof) * deviation / math.sqrt(count)
