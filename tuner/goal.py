"""What a search maximises: the composite score, or how soon training reaches the target return.

Apart from the composite because that is reported whatever the goal is: here alone stands which of
the two is told to Optuna, ends a search and chooses `balanced`.
"""

from typing import Protocol

COMPOSITE = "composite"
TIME_TO_RETURN = "time-to-return"
TRAINING_SHARE = 0.8
"""Of `--timeout`: training that has not reached the target by then ends, so that it is judged."""


class Scored(Protocol):
    """A record, or what is known of a config."""

    @property
    def goal_score(self) -> float | None:
        """Of `--goal time-to-return`; None under the composite."""

    @property
    def final_score(self) -> float | None:
        """The composite."""


def objective_of(scored: Scored) -> float | None:
    """Return what a search maximises, None where it was not measured."""
    return scored.final_score if scored.goal_score is None else scored.goal_score


def time_score(
    seconds: float | None, *, reference_s: float, best_return: float | None, start: float,
    target: float,
) -> float:  # fmt: skip
    """Return the score of a training by the seconds that it took to the target return.

    Reached: 0.5 + 0.5 · reference / (reference + seconds), which is 0.75 at the reference. Not
    reached: half of the way from `start` to `target`, in [0, 0.5], so below all that reached it.

    Args:
        seconds: of training until the target was first reached, None where it was not.
        reference_s: the baseline's.
        best_return: the highest training return of a block, None where no episode ended.
        start: the random policy's return.
        target: above `start`.
    """
    if seconds is not None:
        return 0.5 + 0.5 * reference_s / (reference_s + seconds)
    if best_return is None:
        return 0.0
    return 0.5 * min(1.0, max(0.0, (best_return - start) / (target - start)))
