"""What a training came to: achieved against expected throughput, and what the policy returns.

Apart from the training because it is a comparison: like is held against like, steady state against
steady state, and where the two are not alike it says why and compares nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.metrics_log import FILE_NAME, read_metrics
from tuner.measurement import Evaluation
from tuner.protocol import Event
from tuner.references import assess_training, stored_references
from tuner.throughput import measure_throughput
from tuner.training_files import CHECKPOINTS_FOLDER, RESULT_FILE
from tuner.training_plan import TrainingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The end of a training; the document of `tuner train --json`.

    `sps` is of the steady state of this command's blocks, without compiling (`compile_s`), saving
    and evaluation; `train_s` the time of all its blocks. `not_comparable` says why `expected_sps`
    is no promise for it, and is empty where it is one. `quality_score` is the final
    policy's, against what the profile was judged by, after `env_steps` instead of its
    `expected_after_env_steps`; `expected_quality_score` is None where the profile's own is no final
    policy's.
    """

    profile: str
    num_envs: int
    num_steps: int
    num_minibatches: int
    num_epochs: int
    seed: int
    env_steps: int
    updates: int
    resumed_after_update: int | None
    compile_s: float
    train_s: float
    sps: float | None
    expected_sps: float | None
    expected_sps_ci95: Sequence[float] | None
    not_comparable: Sequence[str]
    mean_return: float | None
    return_se: float | None
    expected_mean_return: float | None
    expected_after_env_steps: int | None
    best_return: float | None
    quality_score: float | None
    quality_reason: str | None
    expected_quality_score: float | None
    checkpoint: str
    metrics: str
    warnings: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)

    @property
    def verdict(self) -> str | None:
        """How the throughput stands to the expected interval; None where it cannot be compared."""
        if self.not_comparable or self.sps is None or self.expected_sps is None:
            return None
        if self.expected_sps_ci95 is None:
            return f"{self.sps / self.expected_sps:.2f} × the expected"
        low, high = self.expected_sps_ci95
        if self.sps < low:
            return "below the interval"
        return "above the interval" if self.sps > high else "inside the interval"


def judge(
    plan: TrainingPlan,
    events: Sequence[Event],
    *,
    folder: Path,
    warnings: Sequence[str],
    is_other_device: bool,
) -> Trained:
    """Return what a training came to, from the events of its last process and its metrics.

    Args:
        plan: what was asked for.
        events: of a child that ended with `done`.
        folder: of the training.
        warnings: what the user was warned of.
        is_other_device: whether the profile was measured on another one.
    """
    by_name = {event.name: event.data for event in events}
    done, compiled, started = by_name["done"], by_name["fitted"], by_name["started"]
    blocks = [event.data for event in events if event.name == "trained"]
    throughput = measure_throughput([(b["block_env_steps"], b["seconds"]) for b in blocks])
    lines = read_metrics(folder / FILE_NAME)
    profile, last = plan.profile, lines[-1]
    score, reason = _quality(plan, lines, done)
    return Trained(
        profile=profile.profile,
        **compiled["hardware"],
        seed=plan.settings.seed,
        env_steps=last["env_steps"],
        updates=last["update"],
        resumed_after_update=by_name.get("restored", {}).get("update"),
        compile_s=sum(event.data["compile_s"] for event in events if event.name == "fitted"),
        train_s=sum(block["seconds"] for block in blocks),
        sps=None if throughput is None else throughput.sps,
        expected_sps=profile.expected_sps,
        expected_sps_ci95=profile.expected_sps_ci95,
        not_comparable=_not_comparable(plan, compiled["hardware"], is_other_device),
        mean_return=done["mean_return"],
        return_se=done["return_se"],
        expected_mean_return=None if plan.differences else profile.mean_return,
        expected_after_env_steps=None if plan.differences else profile.measured.get("env_steps"),
        best_return=started["best_return"],
        quality_score=score,
        quality_reason=reason,
        expected_quality_score=_expected_quality(plan),
        checkpoint=str(folder / CHECKPOINTS_FOLDER / str(last["update"])),
        metrics=str(folder / FILE_NAME),
        warnings=list(warnings),
    )


def stored_result(folder: Path, *, total_steps: int) -> Trained | None:
    """Return the result of a training that has ended, None where env-steps are left or it broke."""
    try:
        found = Trained(**json.loads((folder / RESULT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.env_steps >= total_steps else None


def _not_comparable(plan: TrainingPlan, used: dict[str, int], is_other_device: bool) -> list[str]:
    reasons = [
        f"{name} is {number}, not {getattr(plan.profile, name)}"
        for name, number in used.items()
        if number != getattr(plan.profile, name)
    ]
    if plan.differences:
        reasons.append("the workload is another")
    if is_other_device:
        reasons.append("the device is another")
    return reasons


def _expected_quality(plan: TrainingPlan) -> float | None:
    references = stored_references(plan.profile.measured)
    if plan.differences or (references is not None and references.num_evaluations > 1):
        return None
    return plan.profile.quality_score


def _quality(
    plan: TrainingPlan, lines: Sequence[dict[str, Any]], done: dict[str, Any]
) -> tuple[float | None, str | None]:
    """Return the quality score and why it is that, as far as the profile tells what to judge by."""
    references = stored_references(plan.profile.measured)
    if references is None or plan.differences:
        return None, None
    evaluation = None
    if done["mean_return"] is not None:
        evaluation = Evaluation(
            mean_return=done["mean_return"],
            return_se=done["return_se"] or 0.0,
            params_changed=done["params_changed"],
        )
    own = ("update", "env_steps", "seconds", "sps")
    metrics = [{n: v for n, v in line.items() if n not in own} for line in lines]
    found = assess_training(metrics, evaluation, references).get_diagnostics()
    return found["quality_score"], found["reason"]
