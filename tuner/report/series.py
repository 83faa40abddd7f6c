"""Which trials a report shows one by one, with their curves and device samples.

Apart from the page because a study of a thousand trials has more series than a file should hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.records import CurvePoint, DeviceSample, TrialRecord
from storage.telemetry import Telemetry
from tuner.aggregate import ConfigSummary, hardware_of
from tuner.goal import objective_of
from tuner.report.overview import front_of
from tuner.report.reading import StudyReading
from tuner.space import HardwareConfig

MOST_TRIALS = 200
MOST_CURVES = 8
"""Lines that can be told from each other in one plot."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One measurement with its series; `label` is what it is called in a list."""

    label: str
    record: TrialRecord
    curve: Sequence[CurvePoint]
    samples: Sequence[DeviceSample]


@dataclass(frozen=True, slots=True)
class Series:
    """The trials that are shown one by one, by number; `left_out` are the others."""

    entries: tuple[Entry, ...]
    best: tuple[int, ...]
    left_out: int

    def named(self) -> dict[str, tuple[TrialRecord, Sequence[CurvePoint]]]:
        """Return the curves of the trials that matter most, best first, by what they are called."""
        by_trial = {entry.record.trial: entry for entry in self.entries}
        found = [by_trial[trial] for trial in self.best if trial in by_trial]
        return {entry.label: (entry.record, entry.curve) for entry in found}


def read_series(
    study: StudyReading, telemetry: Telemetry, chosen: Mapping[str, HardwareConfig]
) -> Series:
    """Read the series of a study's most telling trials.

    Args:
        study: what was measured.
        telemetry: where the series are.
        chosen: the profiles' configs by name; these and the baseline come first.
    """
    front = set(front_of(study))
    places = list(chosen.values())

    def rank(summary: ConfigSummary) -> tuple[int, bool, bool, float]:
        config, score = summary.config, objective_of(summary) or -1.0
        place = places.index(config) if config in places else len(places)
        return place, summary.trial != 0, summary.trial not in front, -score

    ranked = sorted(study.summaries, key=rank)
    shown = ranked[:MOST_TRIALS]
    by_config = _first_records(study.records)
    entries = []
    for summary in sorted(shown, key=lambda s: s.trial):
        record = by_config[summary.config]
        at = (study.name, record.trial, record.replicate)
        label = _label(summary, record, chosen)
        entries.append(Entry(label, record, telemetry.curve(*at), telemetry.samples(*at)))
    best = [by_config[s.config].trial for s in ranked if s.status == "success"][:MOST_CURVES]
    return Series(tuple(entries), tuple(best), len(ranked) - len(shown))


def _first_records(records: Sequence[TrialRecord]) -> dict[HardwareConfig, TrialRecord]:
    """Return one record of each config: its first clean success, else success, else its first."""
    found: dict[HardwareConfig, TrialRecord] = {}
    for record in sorted(records, key=lambda r: (_poorness(r), r.trial, r.replicate)):
        found.setdefault(hardware_of(record), record)
    return found


def _poorness(record: TrialRecord) -> int:
    return 2 if record.status != "success" else int(record.contaminated is not None)


def _label(
    summary: ConfigSummary, record: TrialRecord, chosen: Mapping[str, HardwareConfig]
) -> str:
    roles = [name for name, config in chosen.items() if config == summary.config]
    roles += ["baseline"] if summary.trial == 0 else []
    roles += [] if record.status == "success" else [record.status]
    said = f" ({', '.join(roles)})" if roles else ""
    return f"{record.trial}: {summary.config}{said}"
