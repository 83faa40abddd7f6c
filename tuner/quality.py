"""Learning quality: from a training curve and an evaluation to a diagnosis and a score in [0, 1].

Apart from the composite because it asks whether this config *learned* within its budget. Policies
that learn, act at random, never change, collapsed or diverged are told apart; unknown is `None`.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

COLLAPSE_SHARE = 0.05
"""Entropy below this share of its maximum (or σ, of its start) is a collapse."""
EXPERT_PROGRESS = 0.9
"""Progress from which a policy may be as certain as it likes."""
NEAR_ZERO_PROGRESS = 0.05
"""Progress at or below which a collapsed policy has learned nothing."""
HOPELESS_PROGRESS = -1.0
VALUE_LOSS_GROWTH = 10.0
HEALTHY_KL = 0.05
RUNAWAY_KL = 0.5
RANDOM_SE = 2.0
"""Standard errors by which a return must exceed the random policy's."""
LEARNABLE_SE = 3.0
"""Standard errors by which the baseline must exceed the random policy to serve as a scale."""
TREND_METRICS = ("mean_return", "entropy", "value_loss", "approx_kl")
JUDGED_METRICS = (
    *TREND_METRICS,
    "policy_loss",
    "explained_variance",
    "grad_norm",
    "clip_fraction",
    "sigma_share",
    "max_entropy",
)
"""The metrics of a block that `TrainingQualityValidator.add_metrics` takes."""


@dataclass(frozen=True, slots=True)
class QualityReferences:
    """What returns are compared with; stored on the study at calibration and never moved.

    Returns are in the environment's own units. `random_se` and `baseline_se` are standard errors
    over seeds. `best_return` is a known optimum or a declared maximum. `num_evaluations` says what
    R is, the return that is scored: the final policy's (1), or the mean over those of `MILESTONES`
    and the end (4, `Evaluation.learning_return`). `baseline_learning` is the baseline's R,
    `baseline_return` its final policy's return; a study from before they differed has that alone.
    `max_entropy` is in nats over all actions; where some are forbidden, the training's own
    `max_entropy` metric counts instead.
    """

    random_return: float
    random_se: float
    best_return: float | None = None
    baseline_return: float | None = None
    baseline_se: float | None = None
    max_entropy: float | None = None
    baseline_learning: float | None = None
    baseline_learning_se: float | None = None
    num_evaluations: int = 1

    @property
    def baseline_learned(self) -> bool | None:
        """Whether the baseline's R is three standard errors above random; `None` if unmeasured.

        The standard error is that of the difference. Where `best_return` is unknown and this is
        not true, the budget is too short to judge learning.
        """
        learned, baseline_se = self._baseline
        if learned is None or baseline_se is None:
            return None
        return learned - self.random_return > LEARNABLE_SE * math.hypot(baseline_se, self.random_se)

    @property
    def scale(self) -> float | None:
        """Return from random to best, or `None` where nothing says how far that is.

        Without a `best_return` it is twice the way from random to the baseline's R, so that the
        baseline has made half of it.
        """
        learned, _ = self._baseline
        if self.best_return is not None:
            gap = self.best_return - self.random_return
        elif learned is not None and self.baseline_learned:
            gap = 2 * (learned - self.random_return)
        else:
            return None
        return gap if gap > 0 else None

    @property
    def _baseline(self) -> tuple[float | None, float | None]:
        """The baseline's R and its standard error."""
        if self.baseline_learning is None:
            return self.baseline_return, self.baseline_se
        return self.baseline_learning, self.baseline_learning_se


class TrainingQualityValidator:
    """Judges one trial: feed it each block's metrics and the evaluation, then ask.

    A metric that is unknown is `None` (the mean return while no episode has ended, for one); one
    that is NaN or infinite is taken as measured to be so, and the trial has diverged.
    """

    def __init__(self, references: QualityReferences) -> None:
        """Judge against `references`."""
        self._references = references
        self.reset()

    def reset(self) -> None:
        """Forget the trial, keep the references."""
        self._blocks: list[dict[str, float | None]] = []
        self._mean_return: float | None = None
        self._learning_return: float | None = None
        self._standard_error: float | None = None
        self._params_changed: bool | None = None

    def add_metrics(
        self,
        *,
        mean_return: float | None = None,
        entropy: float | None = None,
        policy_loss: float | None = None,
        value_loss: float | None = None,
        approx_kl: float | None = None,
        explained_variance: float | None = None,
        grad_norm: float | None = None,
        clip_fraction: float | None = None,
        sigma_share: float | None = None,
        max_entropy: float | None = None,
    ) -> None:
        """Add the means over one block of training, in the order in which the blocks ran.

        Args:
            mean_return: of the episodes that ended in the block.
            entropy: of the policy, in nats.
            policy_loss: PPO's clipped surrogate.
            value_loss: squared error of the value function.
            approx_kl: from the old policy to the new, in nats.
            explained_variance: recorded, not judged.
            grad_norm: global norm before clipping.
            clip_fraction: share of ratios that were clipped.
            sigma_share: mean σ of a Gaussian policy over its start; None for discrete actions.
            max_entropy: mean of the greatest entropy that each state's allowed actions leave; None
                where all are allowed. States with one add 0 to it and to `entropy` alike.
        """
        self._blocks.append(
            {
                "mean_return": mean_return,
                "entropy": entropy,
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "approx_kl": approx_kl,
                "explained_variance": explained_variance,
                "grad_norm": grad_norm,
                "clip_fraction": clip_fraction,
                "sigma_share": sigma_share,
                "max_entropy": max_entropy,
            }
        )

    def set_evaluation(
        self,
        mean_return: float | None,
        standard_error: float | None,
        *,
        params_changed: bool | None,
        learning_return: float | None = None,
    ) -> None:
        """Set what the policy achieved, at the end and on the way there.

        Args:
            mean_return: of the final policy, over fresh episodes: whether it is sound.
            standard_error: of that mean, over episodes.
            params_changed: whether training moved any parameter.
            learning_return: R, the mean of such means over milestones of the training and its end:
                how well it learned. The final policy's where there is none of others.
        """
        self._mean_return = mean_return
        self._learning_return = mean_return if learning_return is None else learning_return
        self._standard_error = standard_error
        self._params_changed = params_changed

    def is_quality_acceptable(self) -> bool | None:
        """Return whether the trial learned soundly; `None` where the data do not say.

        False when it diverged (NaN or infinity, approximate KL above 0.5 in every block,
        unclipped progress below −1), collapsed with progress near 0, is frozen, or returns no
        more than two standard errors above the random policy.
        """
        diagnosis = self._diagnose()[0]
        if diagnosis == "too_little_data":
            return None
        if diagnosis == "collapsed":
            return not (self._is_near_zero() or self._is_random())
        return diagnosis == "learning"

    def calculate_quality_score(self) -> float | None:
        """Return p · (0.3 + 0.3·e + 0.2·l + 0.2·k) in [0, 1], or `None` with too little data.

        p is R's progress from the random to the best return, clipped to [0, 1]; e, l and k are the
        health of entropy, losses and KL, each 1 unless a fault is measured.
        """
        progress = self._progress()
        if progress is None or self._missing() is not None:
            return None
        health = 0.3 + 0.3 * self._entropy_term() + 0.2 * self._loss_term() + 0.2 * self._kl_term()
        # The weights sum to 1 only up to rounding.
        return min(1.0, min(1.0, max(0.0, progress)) * health)

    def get_diagnostics(self) -> dict[str, Any]:
        """Return everything behind the judgement, ready for JSON.

        Returns:
            `diagnosis` (learning, random, frozen, diverged, collapsed or too_little_data),
            `reason` (one sentence), `acceptable`, `quality_score`, `progress` (clipped),
            `progress_unclipped`, `terms` (e, l, k), `trends` (least-squares slopes per block, of
            the metrics in `TREND_METRICS`, `None` below two known blocks) and `num_blocks`.
        """
        diagnosis, reason = self._diagnose()
        progress = self._progress()
        return {
            "diagnosis": diagnosis,
            "reason": reason,
            "acceptable": self.is_quality_acceptable(),
            "quality_score": self.calculate_quality_score(),
            "progress": None if progress is None else min(1.0, max(0.0, progress)),
            "progress_unclipped": progress,
            "terms": {
                "e": self._entropy_term(),
                "l": self._loss_term(),
                "k": self._kl_term(),
            },
            "trends": {name: _slope(self._series(name)) for name in TREND_METRICS},
            "num_blocks": len(self._blocks),
        }

    def _diagnose(self) -> tuple[str, str]:
        """Return the diagnosis and its reason, the gravest fault first."""
        if fault := self._divergence():
            return "diverged", fault
        if self._params_changed is False:
            return "frozen", "No parameter changed during training."
        if self._is_collapsed():
            return "collapsed", (
                f"The policy stopped exploring (entropy or σ below {COLLAPSE_SHARE:.0%} of its "
                f"reference) at a return of {self._mean_return:.4g}, short of what was to be had."
            )
        if self._is_random():
            return "random", (
                f"The return of {self._mean_return:.4g} is not above the random policy's "
                f"{self._references.random_return:.4g} by two standard errors "
                f"({self._random_error():.2g} each)."
            )
        if missing := self._missing():
            return "too_little_data", missing
        returned = f"The return of {self._mean_return:.4g}"
        if self._learning_return != self._mean_return:
            returned = (
                f"The return over the training, {self._learning_return:.4g} on average and "
                f"{self._mean_return:.4g} at its end,"
            )
        return "learning", f"{returned} is {self._progress():.0%} of the way from random to best."

    def _divergence(self) -> str | None:
        for number, block in enumerate(self._blocks):
            for name, value in block.items():
                if value is not None and not math.isfinite(value):
                    return f"{name} became {value} in block {number}."
        for value in (self._mean_return, self._learning_return):
            if value is not None and not math.isfinite(value):
                return f"The evaluated return is {value}."
        divergences = _known(self._series("approx_kl"))
        if divergences and min(divergences) > RUNAWAY_KL:
            return f"The approximate KL stayed above {RUNAWAY_KL} in every block."
        progress = self._progress()
        if progress is not None and progress < HOPELESS_PROGRESS:
            return (
                f"The return of {self._learning_return:.4g} is further below random than the best "
                "return is above it."
            )
        return None

    def _missing(self) -> str | None:
        if not self._blocks:
            return "No block of training was measured."
        if self._mean_return is None:
            return "The final policy was not evaluated."
        if self._params_changed is None:
            return "Whether training changed any parameter was not measured."
        if self._references.scale is None:
            if self._references.best_return is not None:
                return "The best return is not above the random policy's; check best_return."
            return (
                "The best return is unknown and the baseline is not three standard errors above "
                "random: train for more env-steps or declare best_return."
            )
        return None

    def _progress(self) -> float | None:
        """Return p before clipping, or `None` where R or the scale is unknown."""
        return self._progress_of(self._learning_return)

    def _final_progress(self) -> float | None:
        """Return the final policy's progress, by which its faults are told."""
        return self._progress_of(self._mean_return)

    def _progress_of(self, mean_return: float | None) -> float | None:
        scale = self._references.scale
        if mean_return is None or scale is None or not math.isfinite(mean_return):
            return None
        return (mean_return - self._references.random_return) / scale

    def _is_random(self) -> bool:
        if self._mean_return is None:
            return False
        return (
            self._mean_return <= self._references.random_return + RANDOM_SE * self._random_error()
        )

    def _random_error(self) -> float:
        """Return how far chance moves a return: a policy is evaluated on fewer episodes than it."""
        return max(self._references.random_se, self._standard_error or 0.0)

    def _is_near_zero(self) -> bool:
        progress = self._final_progress()
        return progress is not None and progress <= NEAR_ZERO_PROGRESS

    def _is_collapsed(self) -> bool:
        """Return whether the last block's policy is nearly deterministic without being good."""
        # A Gaussian policy's entropy has no maximum to be compared with.
        if deviations := _known(self._series("sigma_share")):
            return deviations[-1] < COLLAPSE_SHARE and self._falls_short()
        entropies, limits = _known(self._series("entropy")), _known(self._series("max_entropy"))
        limit = limits[-1] if limits else self._references.max_entropy
        too_certain = bool(limit and entropies and entropies[-1] < COLLAPSE_SHARE * limit)
        return too_certain and self._falls_short()

    def _falls_short(self) -> bool:
        """Return whether the end is short of 0.9 of the way, or of the baseline's clearly."""
        if self._references.best_return is not None:
            progress = self._final_progress()
            return progress is not None and progress < EXPERT_PROGRESS
        baseline, error = self._references.baseline_return, self._references.baseline_se
        if self._mean_return is None or baseline is None or error is None:
            return False
        if self._standard_error is not None:
            error = math.hypot(error, self._standard_error)
        return self._mean_return < baseline - RANDOM_SE * error

    def _entropy_term(self) -> float:
        return 0.0 if self._is_collapsed() else 1.0

    def _loss_term(self) -> float:
        losses = self._series("value_loss")
        if not all(map(math.isfinite, _present(losses + self._series("policy_loss")))):
            return 0.0
        half = len(losses) // 2
        second = _known(losses[half:])
        if len(second) < 2 or second[0] <= 0:
            return 1.0
        rise = _slope(self._series("mean_return")[half:])
        explodes = second[-1] > VALUE_LOSS_GROWTH * second[0]
        return 0.0 if explodes and rise is not None and rise <= 0 else 1.0

    def _kl_term(self) -> float:
        divergences = _known(self._series("approx_kl"))
        if not divergences:
            return 1.0
        excess = (statistics.fmean(divergences) - HEALTHY_KL) / (RUNAWAY_KL - HEALTHY_KL)
        return min(1.0, max(0.0, 1.0 - excess))

    def _series(self, name: str) -> list[float | None]:
        return [block[name] for block in self._blocks]


def _present(series: Sequence[float | None]) -> list[float]:
    return [value for value in series if value is not None]


def _known(series: Sequence[float | None]) -> list[float]:
    return [value for value in _present(series) if math.isfinite(value)]


def _slope(series: Sequence[float | None]) -> float | None:
    """Return the least-squares slope per block over the known, finite blocks."""
    points = [(i, y) for i, y in enumerate(series) if y is not None and math.isfinite(y)]
    if len(points) < 2:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope
