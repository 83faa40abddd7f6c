"""Memory of every config of a space from one program for each batch and number of minibatches.

Our PPO keeps three kinds of arrays: of `num_envs` rows (the carry, which are the program's
arguments), of `num_envs × num_steps` rows (the batch) and of as many rows as a minibatch has. So

    memory = arguments(num_envs) + rest(num_envs × num_steps, num_minibatches)

where `arguments` is linear and `num_epochs` is only how often a loop goes round: in the default
space 45 programs tell the memory of 168 configs. Every plan checks that by compiling another shape
of a batch and other epochs; where they differ, and for a trainer of the user's own, all configs are
compiled.

Between batches nothing is interpolated. That was tried: compiled for an H100, small minibatches
take up to 7 % more or less than the line through their neighbours says, and the largest batch of
four minibatches a quarter less, with middles that lie on the line within 1 %.
"""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tuner.space import HardwareConfig

TOLERANCE = 0.001
"""What shapes of the same batch, and epochs, may differ by; they were equal to the byte."""

Source = Literal["compiled", "derived", "failed"]
Pair = tuple[HardwareConfig, HardwareConfig]


@dataclass(frozen=True, slots=True)
class Program:
    """What is known of one config's compiled program; `failed` says why there is none."""

    predicted_bytes: int | None = None
    argument_bytes: int | None = None
    failed: str | None = None

    @property
    def rest(self) -> int | None:
        """Bytes beside the arguments."""
        if self.predicted_bytes is None or self.argument_bytes is None:
            return None
        return self.predicted_bytes - self.argument_bytes


Known = Mapping[HardwareConfig, Program]


@dataclass(frozen=True, slots=True)
class Row:
    """The memory of one config, and where the figure comes from.

    `derived`: from the program of the same batch and minibatches, with other epochs or another
    split of the batch into environments and steps. A failed one has its reason.
    """

    bytes: int | None
    source: Source
    reason: str | None = None


@dataclass(slots=True)
class Footprint:
    """What the known programs say of every config, and what else must be compiled for it.

    `largest_difference` is the largest, as a share, between programs that should take the same.
    """

    rows: dict[HardwareConfig, Row] = field(default_factory=dict)
    wanted: set[HardwareConfig] = field(default_factory=set)
    largest_difference: float | None = None


def footprint(configs: Sequence[HardwareConfig], known: Known, *, of_ppo: bool) -> Footprint:
    """Return the memory of every config as far as it is known, and what to compile next.

    Args:
        configs: of a space.
        known: what has been compiled.
        of_ppo: whether the program is our PPO's, whose memory has a form.
    """
    pairs = _pairs_to_check(configs) if of_ppo else []
    difference = _largest_difference(pairs, known)
    if not of_ppo or (difference or 0.0) > TOLERANCE:
        return _all_compiled(configs, known, difference)
    wanted = {config for pair in pairs for config in pair}
    rests: dict[tuple[int, int], int] = {}
    broken: set[tuple[int, int]] = set()
    for config, program in known.items():
        if program.rest is None:
            broken.add(_kind(config))
        else:
            rests[_kind(config)] = program.rest
    arguments = _Line((c.num_envs, p.argument_bytes) for c, p in known.items())
    found = Footprint(largest_difference=difference)
    covered = {_kind(config) for config in wanted}
    for config in sorted(configs, key=lambda c: (c.num_epochs, c.num_envs)):
        if config in known:
            found.rows[config] = _compiled(known[config])
        elif _kind(config) in broken:
            wanted.add(config)  # the others of its kind may compile
        elif _kind(config) not in rests:
            if _kind(config) not in covered:
                wanted.add(config)
                covered.add(_kind(config))
        elif (held := arguments.at(config.num_envs)) is None:
            wanted.add(config)
        else:
            found.rows[config] = Row(round(rests[_kind(config)] + held), "derived")
    found.wanted = wanted - known.keys()
    return found


class _Line:
    """Piecewise linear through points; equal x are one point."""

    def __init__(self, points: Iterable[tuple[int, int | None]]) -> None:
        values = dict(sorted((x, y) for x, y in points if y is not None))
        self._x, self._y = list(values), list(values.values())

    def at(self, x: int) -> float | None:
        """Return the value at `x`, None outside the points."""
        if not self._x or not self._x[0] <= x <= self._x[-1]:
            return None
        right = bisect.bisect_left(self._x, x)
        if self._x[right] == x:
            return self._y[right]
        x0, x1, y0, y1 = *self._x[right - 1 : right + 1], *self._y[right - 1 : right + 1]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def _kind(config: HardwareConfig) -> tuple[int, int]:
    """Return what the memory beside the arguments follows from."""
    return config.batch_size, config.num_minibatches


def _all_compiled(
    configs: Sequence[HardwareConfig], known: Known, difference: float | None
) -> Footprint:
    return Footprint(
        rows={config: _compiled(known[config]) for config in configs if config in known},
        wanted=set(configs) - known.keys(),
        largest_difference=difference,
    )


def _pairs_to_check(configs: Sequence[HardwareConfig]) -> list[Pair]:
    """Return pairs whose memory beside the arguments must be equal: epochs, and the shape."""
    by_epochs: dict[tuple[int, int, int], list[HardwareConfig]] = {}
    by_shape: dict[tuple[int, int, int], list[HardwareConfig]] = {}
    for c in sorted(configs, key=lambda c: (c.batch_size, c.num_envs, c.num_epochs)):
        by_epochs.setdefault((c.num_envs, c.num_steps, c.num_minibatches), []).append(c)
        by_shape.setdefault((*_kind(c), c.num_epochs), []).append(c)
    same_config = next((g for g in by_epochs.values() if len(g) > 1), [])
    same_batch = max(by_shape.values(), key=lambda g: g[-1].num_envs / g[0].num_envs, default=[])
    return [(group[0], group[-1]) for group in (same_config, same_batch) if len(group) > 1]


def _largest_difference(pairs: Sequence[Pair], known: Known) -> float | None:
    shares = []
    for pair in pairs:
        first, second = (known[config].rest if config in known else None for config in pair)
        if first is not None and second is not None:
            shares.append(abs(first - second) / max(first, second, 1))
    return max(shares, default=None)


def _compiled(program: Program) -> Row:
    if program.failed is not None or program.predicted_bytes is None:
        return Row(None, "failed", program.failed or "the compiler does not tell its memory")
    return Row(program.predicted_bytes, "compiled")
