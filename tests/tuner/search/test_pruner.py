"""What the lossless pruner cuts, from bars that can be read off; replays are in `test_replay`."""

import json
from dataclasses import replace
from typing import Any

import optuna
import pytest

from storage.recovery import RECORD_ATTR
from storage.studies import set_study_fact
from tests.tuner.measurements import record
from tuner.objective import Milestones
from tuner.outcome import Pruned
from tuner.protocol import Event
from tuner.quality import QualityReferences
from tuner.references import References
from tuner.score import Weights
from tuner.search.pruner import Bar, make_pruner

REFERENCES = References(
    quality=QualityReferences(random_return=0.0, random_se=0.1, best_return=10.0),
    quality_reason=None, components=("gpu", "quality", "sps"), weights=Weights(),
    sps=100_000.0, spread=None, epsilon=0.01, target_return=None, env_steps=400,
)  # fmt: skip
BUSY = {"device_util": 90.0, "quality_score": 0.9, "final_score": 0.85, "quality_acceptable": True}
MEASURED = [record(n, **(BUSY | {"device_util": 90.0 - n})) for n in range(5)]
SLOW = {"sps": 20_000.0, "util": 50.0}


def is_cut(
    *, sps: float, util: float | None, references: References = REFERENCES, **changes: Any
) -> bool:
    """Whether a trial is cut that runs so fast and keeps the device so busy."""
    study = optuna.create_study(direction="maximize", pruner=make_pruner("lossless"))
    set_study_fact(study, "references", references.as_json())
    if "min_feasible" in changes:
        set_study_fact(study, "config", {"min_feasible": changes.pop("min_feasible")})
    for known in MEASURED:
        stored = json.dumps(replace(known, **changes).as_dict())
        study.add_trial(optuna.create_trial(value=0.5, user_attrs={RECORD_ATTR: stored}))
    milestones = Milestones(study.ask(), 400, util_so_far=lambda: util)
    data = {"env_steps": 100, "seconds": 100 / sps, "metrics": {"mean_return": 1.0}}
    return isinstance(milestones.see(Event("block", 0.0, {**data, "learning": True})), Pruned)


def test_the_bar_is_what_the_rules_of_the_profiles_ask() -> None:
    # The best score less two ties; the highest utilisation less two points, and 0.8 × of it.
    assert Bar.of(MEASURED, REFERENCES) == Bar(score=0.85 - 0.02, util=88.0, busy_util=72.0)
    assert Bar.of(MEASURED[:4], REFERENCES) is None
    # Of those that learned too little for max_gpu (1.1 · 0.8 × 0.9) only max_quality's is left.
    weak = [MEASURED[0], *(replace(r, quality_score=0.5, device_util=99.0) for r in MEASURED[1:])]
    assert Bar.of(weak, REFERENCES) == Bar(score=0.83, util=88.0, busy_util=pytest.approx(79.2))


@pytest.mark.parametrize(
    ("sps", "util", "expected"),
    [
        # 0.4 · 55/80 + 0.4 + 0.2 · 22/122 = 0.711: below 0.83, and 55 % below all three.
        (20_000.0, 50.0, True),
        # 1.1 × 66 = 72.6 % is above what max_quality asks: its quality may be the best of all.
        (20_000.0, 66.0, False),
        # 0.275 + 0.4 + 0.2 · 440/540 = 0.838: so fast that it may become balanced.
        (400_000.0, 50.0, False),
        (20_000.0, None, False),
    ],
)
def test_a_trial_is_cut_where_no_profile_could_choose_it(
    sps: float, util: float | None, expected: bool
) -> None:
    assert is_cut(sps=sps, util=util) is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"contaminated": "another process"},
        {"quality_acceptable": False},
        {"device_util": None},
        {"min_feasible": 6},
        {"references": replace(REFERENCES, target_s=3.0)},
        {"references": replace(REFERENCES, epsilon=None)},
        {"references": replace(REFERENCES, components=("quality", "sps"))},
    ],
    ids=str,
)
def test_nothing_is_cut_where_the_bar_is_not_known(changes: dict[str, Any]) -> None:
    assert is_cut(**SLOW)
    assert not is_cut(**SLOW, **changes)
