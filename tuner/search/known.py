"""What the finished trials of a study measured, each read once: it is asked for again and again."""

from collections.abc import Iterable

from optuna.trial import FrozenTrial, TrialState

from storage.records import TrialRecord
from storage.recovery import record_of

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class KnownRecords:
    """The records that finished trials show: each one's last measurement, without its repeats."""

    def __init__(self) -> None:
        """Know none yet."""
        self._read: dict[int, TrialRecord | None] = {}

    def of(self, trials: Iterable[FrozenTrial]) -> list[TrialRecord]:
        """Return those of some trials, in their order; failed ones say nothing."""
        found = []
        for trial in trials:
            if trial.state in _FINISHED:
                if trial._trial_id not in self._read:
                    self._read[trial._trial_id] = record_of(trial)
                found.append(self._read[trial._trial_id])
        return [record for record in found if record is not None]
