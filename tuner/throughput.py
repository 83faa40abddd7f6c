"""Throughput: from timed blocks to env-steps per second and what they are worth.

Apart from whoever times the blocks, because the interval is a matter of statistics alone: it must
hold for a *fresh process*, and the blocks of one process say nothing about how processes differ.

All variances here are relative (divided by the square of the mean), so that those of one config,
the baseline, carry over to another that runs at another speed.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from tuner.steady import find_steady

Block: TypeAlias = tuple[float, float]
"""One timed block: env-steps in it, and its seconds."""

CONFIDENCE = 0.95
WIDE = 0.02
"""Relative half-width above which timed blocks go on."""
MIN_BATCHES = 10
"""Blocks are grouped once there are twice as many: 10 to 19 batches, however many blocks.

More than about 30 batches add little, fewer than 10 cost degrees of freedom (Schmeiser 1982).
"""
MIN_REPLICATES = 3


@dataclass(frozen=True, slots=True)
class Throughput:
    """What the timed blocks of one process say.

    `sps` is in env-steps per second; `block_variance` is the relative variance of the blocks'
    mean (`None` for a single block), estimated from `num_batches` batches. Blocks count from
    `steady_from_block` on; over these the rate changed by `drift` (see `tuner.steady`).
    """

    sps: float
    block_variance: float | None
    num_batches: int
    steady_from_block: int = 0
    drift: float | None = None
    is_steady: bool = True

    @property
    def drift_variance(self) -> float:
        """Relative variance for not knowing where a rate that still drifts will settle."""
        return 0.0 if self.is_steady or self.drift is None else self.drift**2


@dataclass(frozen=True, slots=True)
class RunSpread:
    """How much processes of one config differ, from `num_replicates` of them.

    `between_variance` is the relative variance of their SPS as observed, `within_variance` the
    mean of their `block_variance`, a part of it. Their difference is what a fresh process adds: the
    block part is taken off because `interval` adds that of its own trial (one-way random effects,
    Searle et al. 1992, chapter 3; a negative rest becomes 0).
    """

    between_variance: float
    within_variance: float
    num_replicates: int

    @property
    def run_variance(self) -> float:
        """Relative variance from process to process, without that of their blocks."""
        return max(0.0, self.between_variance - self.within_variance)


def measure_throughput(blocks: Sequence[Block]) -> Throughput | None:
    """Summarise the timed blocks of the steady state; `None` when there are none.

    Args:
        blocks: env-steps and seconds of each, in the order in which they ran.

    Raises:
        ValueError: A block without env-steps or without duration.
    """
    if not blocks:
        return None
    steadiness = find_steady(_rates(blocks))
    counted = blocks[steadiness.first_block :]
    return Throughput(
        sps=statistics.median(_rates(counted)),
        block_variance=block_variance(counted),
        num_batches=len(_batch_means(_rates(counted))),
        steady_from_block=steadiness.first_block,
        drift=steadiness.drift,
        is_steady=steadiness.is_steady,
    )


def block_variance(blocks: Sequence[Block]) -> float | None:
    """Return the relative variance of the mean SPS over blocks, by batch means.

    Neighbouring blocks resemble each other (clocks, temperature, other users), so that the plain
    s²/n is too small. Means of long batches hardly do: with k batches of variance s_b² the mean
    varies by s_b²/k (Conway 1963; Law & Kelton, Simulation Modeling and Analysis, 9.5.3).
    Below 20 blocks each is a batch; the oldest that fill no batch are left out.

    Returns:
        The variance divided by the squared mean; `None` with fewer than two blocks.
    """
    batches = _batch_means(_rates(blocks))
    if len(batches) < 2:
        return None
    return statistics.variance(batches) / len(batches) / statistics.fmean(batches) ** 2


def run_spread(replicates: Sequence[Throughput]) -> RunSpread | None:
    """Return how much fresh processes differ, from at least three replicates of one config."""
    known = [r.block_variance for r in replicates if r.block_variance is not None]
    return _spread([replicate.sps for replicate in replicates], known)


def interval(throughput: Throughput, spread: RunSpread | None) -> tuple[float, float] | None:
    """Return the 95 % interval for the SPS of another fresh process, from one process.

    Half-width: t(ν) · √(2V) · sps with V = block variance + run variance: the measured process
    and the one to come each vary by V around what the config gives. Where the measured one still
    drifted, the square of its drift is added to V. V is estimated from three
    variances: b (this trial's blocks, k − 1 degrees of freedom), B (between the R replicates,
    R − 1) and w (their blocks, R(k − 1)), so that by Welch–Satterthwaite

        ν = V² / (b²/(k − 1) + B²/(R − 1) + w²/(R(k − 1)))

    held at or above the smallest of its parts', which is its bound for a plain sum. With three
    replicates that is close to 2 degrees of freedom, which is what three processes are worth:
    counting the subtracted part as known gave 0.89–0.95 of the nominal 0.95 in simulations over
    block-to-run ratios from 1:3 to 30:1, this gives 0.945–0.99, the blocks' median included.

    Returns:
        Low and high, env-steps per second, or `None` where one of the two parts is unknown: an
        interval of blocks alone would be that of this process, not of a fresh one.
    """
    if spread is None or throughput.block_variance is None:
        return None
    block = throughput.block_variance + throughput.drift_variance
    within = spread.within_variance
    block_dof, run_dof = throughput.num_batches - 1, spread.num_replicates - 1
    variance = block + spread.run_variance
    uncertainty = (
        block**2 / block_dof
        + spread.between_variance**2 / run_dof
        + within**2 / (spread.num_replicates * block_dof)
    )
    dof = float(min(block_dof, run_dof))
    if uncertainty > 0:
        dof = max(dof, variance**2 / uncertainty)
    half_width = student_t(dof) * math.sqrt(2 * variance) * throughput.sps
    return max(0.0, throughput.sps - half_width), throughput.sps + half_width


def is_wide(throughput: Throughput | None) -> bool:
    """Whether more timed blocks are worth their time: not steady, or half-width above 2 %.

    The width is judged on the blocks' part alone, t(k − 1) · √block_variance. What fresh processes
    add does not shrink with more blocks: on a noisy machine no number of them would be enough.
    """
    if throughput is None or throughput.block_variance is None or not throughput.is_steady:
        return True
    critical = student_t(throughput.num_batches - 1)
    return critical * math.sqrt(throughput.block_variance) > WIDE


@cache
def student_t(dof: float) -> float:
    """Return the two-sided 95 % point of Student's t with `dof` ≥ 1 degrees of freedom.

    Fractional degrees are allowed.

    Raises:
        ValueError: Fewer than one degree of freedom.
    """
    from scipy.special import stdtrit  # half a second of imports that most commands never need

    if not dof >= 1:
        raise ValueError(f"dof must be at least 1, but got {dof}; measure more blocks")
    return float(stdtrit(dof, (1 + CONFIDENCE) / 2))


def _rates(blocks: Sequence[Block]) -> list[float]:
    for env_steps, seconds in blocks:
        if not (env_steps > 0 and seconds > 0):
            raise ValueError(
                f"a block must have env-steps and a duration, but got {env_steps} in {seconds} s; "
                "leave out blocks that did not run"
            )
    return [env_steps / seconds for env_steps, seconds in blocks]


def _batch_means(rates: Sequence[float]) -> list[float]:
    length = max(1, len(rates) // MIN_BATCHES)
    left_out = len(rates) % length
    return [
        statistics.fmean(rates[start : start + length])
        for start in range(left_out, len(rates), length)
    ]


def _spread(replicate_sps: Sequence[float], block_variances: Sequence[float]) -> RunSpread | None:
    if len(replicate_sps) < MIN_REPLICATES:
        return None
    return RunSpread(
        between_variance=statistics.variance(replicate_sps) / statistics.fmean(replicate_sps) ** 2,
        within_variance=statistics.fmean(block_variances) if block_variances else 0.0,
        num_replicates=len(replicate_sps),
    )
