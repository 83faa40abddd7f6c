"""What a plan says of time: minutes and trials, from studies that have measured, or not at all.

Speed is never guessed from a device's figures: where no study of the same workload on the same
device stands in the runs folder, there is no forecast, and the reason says so.
"""

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.errors import StorageError
from storage.records import TrialRecord
from tuner.calibration import BUDGET_BATCHES
from tuner.config import StudyConfig
from tuner.errors import TunerError
from tuner.kept_learning import FACT
from tuner.report.reading import BRIEF, StudyReading, read_study
from tuner.stopping import FINALISTS

FIELDS = (*BRIEF, "env_steps")


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds of one trial, minutes of the whole space, and trials that the budget buys.

    All None where no study has measured this; `source` says where they come from, or why not.
    `env_steps` is what every trial would train for.
    """

    trial_s: float | None
    space_minutes: float | None
    budget_trials: int | None
    env_steps: int | None
    source: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def forecast(
    config: StudyConfig, device: str, largest_batch: int | None, num_configs: int
) -> Forecast:
    """Return how long a study would take on a device.

    Args:
        config: resolved for it.
        device: its name, as the driver tells it.
        largest_batch: env-steps of the largest config that fits; the default budget rests on it.
        num_configs: how many of the space would be run; what does not fit is refused before.
    """
    env_steps = config.env_steps
    if env_steps is None and largest_batch is not None:
        env_steps = BUDGET_BATCHES * largest_batch
    study = _alike(config, device)
    if study is None or env_steps is None:
        where = config.runs_dir
        reason = f"unknown: no study of this workload on {device} under {where} has measured it"
        return Forecast(None, None, None, env_steps, reason)
    seconds = [s for record in study.records if (s := _seconds(record, env_steps)) is not None]
    trial_s = statistics.fmean(seconds)
    beside = config.baseline_replicates + FINALISTS
    budget_trials = None
    if config.budget is not None:
        budget_trials = max(0, int(config.budget / trial_s) - beside)
    return Forecast(
        trial_s,
        (num_configs + beside) * trial_s / 60,
        budget_trials,
        env_steps,
        f"{len(seconds)} trials of the study {study.name}, scaled to {env_steps:,} env-steps; the "
        f"baseline's {config.baseline_replicates} and the finalists' {FINALISTS} measurements "
        "included",
    )


def _alike(config: StudyConfig, device: str) -> StudyReading | None:
    """Return the study of the same workload on the same device with the most trials, if any."""
    found: list[StudyReading] = []
    for written in sorted(Path(config.runs_dir).glob("*/config.yaml")):
        try:
            study = read_study(written.parent.name, {"runs_dir": str(config.runs_dir)}, only=FIELDS)
        except (StorageError, TunerError):
            continue  # what cannot be read tells nothing
        hardware = study.facts.get("hardware") or {}
        same = hardware.get("name") == device and study.config.workload() == config.workload()
        if FACT in study.facts:
            continue  # its trials were timed only
        if same and any(_seconds(record, 1) is not None for record in study.records):
            found.append(study)
    return max(found, key=lambda study: len(study.records), default=None)


def _seconds(record: TrialRecord, env_steps: int) -> float | None:
    """Return what a trial would take with other env-steps: its overhead, and those at its speed."""
    duration, sps, trained = record.duration, record.sps, record.env_steps
    if record.status != "success" or duration is None or not sps or trained is None:
        return None
    return max(0.0, duration - trained / sps) + env_steps / sps
