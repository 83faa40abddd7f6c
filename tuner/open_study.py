"""A study that is open: its settings, its trials, its table, and journals of what waits for it.

Apart from the session of a command because a study that nobody measures is put in order, too: one
whose worker died needs no device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from storage.attributes import AttributeTelemetry, adopt
from storage.journal import Entry, Journal, save_leftovers
from storage.records import TrialRecord
from storage.studies import study_id
from storage.telemetry import Telemetry
from tuner.bench import Say
from tuner.config import StudyConfig
from tuner.outcome import Interrupted
from tuner.references import References


@dataclass(slots=True, kw_only=True)
class OpenStudy:
    """A study and where its measurements are kept; `references` is None until it is calibrated."""

    config: StudyConfig
    study: optuna.Study
    telemetry: Telemetry | AttributeTelemetry
    say: Say
    references: References | None = None
    study_id: str = field(init=False)
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.study_id = study_id(self.study)
        self.journal = Journal(self.folder, self.study_id)

    @property
    def folder(self) -> Path:
        """Where the study's files are."""
        return self.config.folder(self.study.study_name)

    def records(self) -> list[TrialRecord]:
        """Return all measurements of the study."""
        return self.telemetry.records(self.study.study_name)

    def adopt(self, trials: Sequence[FrozenTrial] | None = None) -> None:
        """Copy into the table what workers behind a proxy have measured, where it is reached.

        `trials` are the study's, of a caller who has just read them.
        """
        if isinstance(self.telemetry, Telemetry):
            for record in adopt(self.study, self.telemetry, trials):
                self.say(f"trial {record.trial}: measured behind a proxy, now in the table")

    def save_leftovers(self) -> tuple[Path, ...]:
        """Save what ended processes left in their journals; return the files that others hold."""
        left = save_leftovers(self.folder, self.study_id, self._save_unless_known)
        for entry in left.entries:
            self.say(f"trial {entry.record.trial}: its measurement, which waited, is saved")
        for path in left.unreadable:
            self.say(f"{path} holds lines that cannot be read; they are left there")
        return left.busy

    def save(self, entry: Entry) -> None:
        """Save a measurement in the table."""
        self.telemetry.save(entry.study, entry.record, entry.curve, entry.samples)

    def _save_unless_known(self, entry: Entry) -> None:
        """Save an entry unless the table has that measurement: it may have been told of since."""
        known = self.telemetry.record(entry.study, entry.record.trial, entry.record.replicate)
        if known is None or known.status == Interrupted.status:
            self.save(entry)
