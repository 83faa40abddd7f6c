"""What the finished trials of a study measured, each read once: it is asked for again and again."""

import optuna
from optuna.trial import TrialState

from storage.records import TrialRecord
from storage.recovery import record_of

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class KnownRecords:
    """The records that the finished trials of one study show, without their replicates."""

    def __init__(self) -> None:
        """Know none yet."""
        self._read: dict[int, TrialRecord | None] = {}

    def of(self, study: optuna.Study) -> list[TrialRecord]:
        """Return them by trial; those of failed trials say nothing."""
        for trial in study.get_trials(deepcopy=False, states=_FINISHED):
            if trial.number not in self._read:
                self._read[trial.number] = record_of(trial)
        return [record for _, record in sorted(self._read.items()) if record is not None]
