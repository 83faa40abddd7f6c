"""What the finished trials of a study measured, and which configs are known not to fit by it.

Each trial is read once: the sampler and the pruner ask for all of them again and again.
"""

from collections.abc import Iterable, Sequence

from optuna.trial import FrozenTrial, TrialState

from storage.records import TrialRecord
from storage.recovery import record_of
from tuner.aggregate import hardware_of
from tuner.space import HardwareConfig

OUT_OF_MEMORY = ("oom", "predicted_oom")
MEASUREMENTS_ATTR = "measurements"
"""The user attribute of the baseline's trial: of how many measurements its record has the means."""
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class KnownRecords:
    """The records that finished trials show: one measurement of each, without its repeats."""

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


def fitting_of(
    untried: Sequence[HardwareConfig], records: Iterable[TrialRecord]
) -> list[HardwareConfig]:
    """Return the configs that take less memory in some way than each that ran out of it."""
    too_large = {_sizes(hardware_of(r)) for r in records if r.status in OUT_OF_MEMORY}
    return [
        config
        for config in untried
        if not any(
            all(mine >= theirs for mine, theirs in zip(_sizes(config), sizes, strict=True))
            for sizes in too_large
        )
    ]


def _sizes(config: HardwareConfig) -> tuple[int, int, int]:
    """Return what the memory of a config grows with."""
    return config.num_envs, config.batch_size, config.minibatch_size
