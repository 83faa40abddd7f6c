"""Memory of every config of a space from the programs of a few.

Our PPO keeps three kinds of arrays: of `num_envs` rows (the carry, which are the program's
arguments), of `num_envs × num_steps` rows (the batch) and of as many rows as a minibatch has. So

    memory = arguments(num_envs) + rest(num_envs × num_steps, num_minibatches)

where `num_epochs` is only how often a loop goes round. What of this is exact follows from the code,
what is interpolated does not (the compiler may change its mind at some size), and both are checked:
every plan compiles another shape of the same batch, other epochs, and the middle of each stretch
that it interpolates, and goes on halving where the middle is off the line, where bytes a row differ
between the ends, or where the ends are far apart. A trainer of the user's own has no such form: all
its configs are compiled.
"""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tuner.space import HardwareConfig

TOLERANCE = 0.01
"""Largest error of a checked middle; the aim is 3 % for every config between."""
ROW_TOLERANCE = 0.02
"""Within a stretch the bytes a row of the batch may differ so much: at another size the compiler
may share buffers differently, which a middle alone can miss."""
MOST_RATIO = 16
"""Longest stretch, from its smallest to its largest batch."""
FORM_TOLERANCE = 0.001
"""What shapes of the same batch, and epochs, may differ by."""

Source = Literal["compiled", "derived", "interpolated", "failed"]


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
    split of the batch into environments and steps.
    """

    bytes: int | None
    source: Source
    reason: str | None = None


@dataclass(slots=True)
class Estimate:
    """What the known programs say of every config, and what else must be compiled for it.

    `errors` are those of the checked middles, as shares; `form_error` that of what should be equal.
    """

    rows: dict[HardwareConfig, Row] = field(default_factory=dict)
    wanted: set[HardwareConfig] = field(default_factory=set)
    errors: list[float] = field(default_factory=list)
    form_error: float | None = None


def estimate(configs: Sequence[HardwareConfig], known: Known, *, of_ppo: bool) -> Estimate:
    """Return the memory of every config as far as it is known, and what to compile next.

    Args:
        configs: of a space; those that must be exact may be in `known` already.
        known: what has been compiled.
        of_ppo: whether the program is our PPO's, whose memory has a form.
    """
    found = Estimate()
    if of_ppo:
        pairs = _pairs_to_check(configs)
        found.wanted |= {config for pair in pairs for config in pair} - known.keys()
        found.form_error = _largest_difference(pairs, known)
    if not of_ppo or (found.form_error or 0.0) > FORM_TOLERANCE:
        found.wanted |= set(configs) - known.keys()
        found.rows = {config: _compiled(known[config]) for config in configs if config in known}
        return found
    arguments = _Line([(c.num_envs, p.argument_bytes) for c, p in known.items()])
    for minibatches in sorted({config.num_minibatches for config in configs}):
        group = [config for config in configs if config.num_minibatches == minibatches]
        _estimate_group(group, known, arguments, found)
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


def _estimate_group(
    group: Sequence[HardwareConfig], known: Known, arguments: _Line, found: Estimate
) -> None:
    """Fill in the configs of one number of minibatches."""
    by_batch: dict[int, list[HardwareConfig]] = {}
    for config in sorted(group, key=lambda c: (c.batch_size, c.num_epochs, c.num_envs)):
        by_batch.setdefault(config.batch_size, []).append(config)
    batches = list(by_batch)
    rests: dict[int, int] = {}
    broken = False
    for batch, shapes in by_batch.items():
        programs = [known[config] for config in shapes if config in known]
        broken |= any(program.failed is not None for program in programs)
        usable = [program.rest for program in programs if program.rest is not None]
        if usable:
            rests[batch] = usable[0]
    if broken:  # there is no line through a hole
        found.wanted |= set(group) - known.keys()
    else:
        wanted = _wanted_batches(batches, rests, found)
        found.wanted |= {by_batch[batch][0] for batch in wanted}
    line = _Line(rests.items())
    for config in group:
        if config in known:
            found.rows[config] = _compiled(known[config])
            continue
        rest, held = line.at(config.batch_size), arguments.at(config.num_envs)
        if rest is not None and held is not None:
            source: Source = "derived" if config.batch_size in rests else "interpolated"
            found.rows[config] = Row(round(rest + held), source)


def _wanted_batches(batches: list[int], rests: Mapping[int, int], found: Estimate) -> set[int]:
    """Return the batches to compile next: the ends, then middles until all between is even."""
    wanted = {batch for batch in (batches[0], batches[-1]) if batch not in rests}
    stretches = [] if wanted else [(0, len(batches) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        middle = (first + last) // 2
        low, check, high = batches[first], batches[middle], batches[last]
        if check not in rests:
            wanted.add(check)
            continue
        expected = _Line([(low, rests[low]), (high, rests[high])]).at(check) or 0.0
        error = abs(expected - rests[check]) / rests[check] if rests[check] else 0.0
        rises = rests[low] <= rests[check] <= rests[high]
        rows = [rests[batch] / batch for batch in (low, check, high)]
        even = max(rows) <= min(rows) * (1 + ROW_TOLERANCE) and high <= low * MOST_RATIO
        if rises and even and error <= TOLERANCE:
            found.errors.append(error)
        else:
            stretches += [(first, middle), (middle, last)]
    return wanted


def _pairs_to_check(
    configs: Sequence[HardwareConfig],
) -> list[tuple[HardwareConfig, HardwareConfig]]:
    """Return pairs whose memory beside the arguments must be equal: epochs, and the shape."""
    pairs = []
    by_epochs: dict[tuple[int, int, int], list[HardwareConfig]] = {}
    by_shape: dict[tuple[int, int, int], list[HardwareConfig]] = {}
    for c in sorted(configs, key=lambda c: (c.batch_size, c.num_envs, c.num_epochs)):
        by_epochs.setdefault((c.num_envs, c.num_steps, c.num_minibatches), []).append(c)
        by_shape.setdefault((c.batch_size, c.num_minibatches, c.num_epochs), []).append(c)
    same_shape = next((g for g in by_epochs.values() if len(g) > 1), None)
    if same_shape:
        pairs.append((same_shape[0], same_shape[-1]))
    same_batch = max(by_shape.values(), key=lambda g: g[-1].num_envs / g[0].num_envs, default=[])
    if len(same_batch) > 1:
        pairs.append((same_batch[0], same_batch[-1]))
    return pairs


def _largest_difference(
    pairs: Sequence[tuple[HardwareConfig, HardwareConfig]], known: Known
) -> float | None:
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
