"""Ends trials early: Optuna's median, or only where nothing that is still to come could matter.

Apart from the sampler because what is proposed and what is cut have nothing in common.
"""

from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from storage.records import TrialRecord
from storage.studies import study_facts
from tuner.profile_rules import BUSY_SHARE, QUALITY_FLOOR, UTIL_TIE
from tuner.references import References
from tuner.score import score
from tuner.search.known import KnownRecords

SO_FAR_ATTR = "tuner:so_far"
"""System attribute of a running trial: `sps` and `device_util`, as measured up to a milestone."""

MARGIN = 1.1
"""What a trial's speed and utilisation, and the baseline's quality, may yet rise by: a tenth."""
TIES = 2.0
"""Widths of a tie by which the best score is lowered: one is the rule's, one is for its luck."""
FEWEST = 5
"""Clean measurements that may become profiles before anything is cut, --min-feasible at least."""


def make_pruner(name: str) -> optuna.pruners.BasePruner:
    """Return the pruner of a setting: `none`, Optuna's `median`, or `lossless`."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5)
    return LosslessPruner() if name == "lossless" else optuna.pruners.NopPruner()


@dataclass(frozen=True, slots=True)
class Bar:
    """What a config must reach to become a profile, from what is measured already.

    `score` is for `balanced`; `util`, in percent, for `max_gpu`, and `busy_util` must be exceeded
    for `max_quality`.
    """

    score: float
    util: float
    busy_util: float

    @classmethod
    def of(
        cls, records: list[TrialRecord], references: References, *, fewest: int = FEWEST
    ) -> "Bar | None":
        """Return the bar that clean measurements have set, None of fewer than `fewest`.

        None also where no tie is known.
        """
        known = [(r.device_util, r.final_score, r) for r in records if _may_be_profile(r)]
        utils = [util for util, _, _ in known if util is not None]
        scores = [final_score for _, final_score, _ in known if final_score is not None]
        baseline = next((r.quality_score for r in records if r.trial == 0), None)
        if len(known) < fewest or baseline is None or len(utils) < len(known):
            return None
        if references.epsilon is None:  # how lucky the best score is cannot be told
            return None
        floor = MARGIN * QUALITY_FLOOR * baseline
        learned = [u for u, _, r in known if u is not None and (r.quality_score or 0.0) >= floor]
        return cls(
            score=max(scores) - TIES * references.epsilon,
            util=max(learned, default=0.0) - UTIL_TIE,
            busy_util=BUSY_SHARE * max(utils),
        )


class LosslessPruner(optuna.pruners.BasePruner):
    """Cuts a trial that no profile would be, were its learning perfect from there on.

    Quality is unknown until a trial has ended, so it is taken to be 1. The speed and utilisation
    of a trial are known early; they may still rise by a tenth. A trial is cut when with these its
    score stays below the best one by more than two widths of a tie (`balanced`), its utilisation
    more than two points below the highest that learned enough (`max_gpu`), and at most 0.8 × the
    highest of all (`max_quality`). The last alone keeps every trial where utilisation does not
    count, and every busy one: for its quality a config may be chosen however slow it is.

    It cuts nothing in a study that is not tuner's: what a score is made of is not known there.
    """

    def __init__(self) -> None:
        """Make the pruner of one study."""
        self._known = KnownRecords()

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether a trial that reported its speed and utilisation is out of reach."""
        facts = study_facts(study)
        so_far: dict[str, float | None] = trial.system_attrs.get(SO_FAR_ATTR, {})
        sps, util = so_far.get("sps"), so_far.get("device_util")
        if sps is None or util is None or "references" not in facts:
            return False
        references = References.from_json(facts["references"])
        is_other_aim = references.target_s is not None
        if is_other_aim or not {"gpu", "quality"} <= set(references.components):
            return False
        fewest = max(FEWEST, facts.get("config", {}).get("min_feasible", 0))  # what is cut is none
        bar = Bar.of(self._known.of(study.get_trials(deepcopy=False)), references, fewest=fewest)
        if bar is None:
            return False
        most = min(100.0, MARGIN * util)
        best = score(
            references.scores(), device_util=most, quality_score=1.0, sps=MARGIN * sps
        ).final_score
        is_slow = best is not None and best < bar.score
        return is_slow and most < bar.util and most <= bar.busy_util


def _may_be_profile(record: TrialRecord) -> bool:
    is_clean = record.status == "success" and record.contaminated is None
    return is_clean and bool(record.quality_acceptable) and record.final_score is not None
