"""What replays of one method come to: regrets by budget and profile, and on the way there."""

import math
import statistics
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from tuner.profiles import PROFILE_NAMES

SHARES = (0.05, 0.1, 0.2)
"""Budgets, as shares of one repeat of the table."""
LONGEST = 0.4
"""Share of the table after which a search that has not come near is given up."""
NEAR = 0.05
"""The normalised regret whose device-seconds are reported."""
GOOD = 0.1
"""The normalised regret that a replay must not exceed to have succeeded."""
Place = tuple[Hashable, Hashable]
"""Where a replay was judged: on which environment's tables (of a null, which draw), which half."""
POINTS = 40
"""Times at which a search is compared with a random one for its P-score."""
RESAMPLES = 1_000


def times() -> list[float]:
    """Return the shares of a table's device-seconds at which searches are compared."""
    return [max(SHARES) * (i + 1) / POINTS for i in range(POINTS)]


def known_of(values: Iterable[float | None]) -> list[float]:
    """Return the values that are not None."""
    return [value for value in values if value is not None]


def summary(found: Sequence[dict[str, Any]], random: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of one method over seeds (and tables)."""
    exact = {share: known_of(row["exact"][share] for row in found) for share in map(str, SHARES)}
    profiles = {profile: of_profile(profile, found, random) for profile in PROFILE_NAMES}
    return {
        **_headline(profiles["balanced"]),
        "replays": len(found),
        "trials": {
            share: statistics.fmean(row["trials"][share] for row in found)
            for share in map(str, SHARES)
        },
        "random_exactly": {s: statistics.fmean(v) if v else None for s, v in exact.items()},
        "ooms": sum(r["ooms"] for r in found),
        "overrun": max(r["overrun"] for r in found),
        "device_s": statistics.median(r["device_s"] for r in found),
        **profiles,
    }


def _headline(balanced: dict[str, Any]) -> dict[str, Any]:
    """Return what is asked of a method first, all of `balanced`; None where nothing was judged.

    `share_at_10pct` is how much of the gap from the median config to the best is reached with a
    tenth of a table's device-seconds; `success_rate` the share of replays within `GOOD` of the best
    with a fifth; for `p_score` and `device_s_to_5pct` see `of_profile`.
    """
    known = balanced["judged"] > 0
    return {
        "share_at_10pct": 1 - balanced["regret"]["0.1"]["mean"]["value"] if known else None,
        "success_rate": balanced["regret"]["0.2"]["success"]["value"] if known else None,
        "p_score": balanced.get("p_score"),
        "device_s_to_5pct": balanced.get("device_s_to_5pct"),
    }


def of_profile(
    profile: str, found: Sequence[dict[str, Any]], random: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the figures of one method for one profile; of those replays that are not tied."""
    told = [r for r in found if r["regrets"][str(SHARES[-1])][profile] is not None]
    if not told:
        return {"judged": 0}
    places = [r["place"] for r in told]
    near = [
        (share, share * r["device_s"])
        for r in told
        if (share := r["share_to_near"][profile]) is not None
    ]
    shares, seconds = (sorted(values) for values in zip(*near, strict=True)) if near else ([], [])
    regrets = {share: [r["regrets"][share][profile] for r in told] for share in map(str, SHARES)}
    return {
        "judged": len(told),
        "regret": {
            share: {
                "mean": mean_of(values, places),
                "median": statistics.median(values),
                "success": mean_of([float(value <= GOOD) for value in values], places),
                "success_by_half": by_half([float(value <= GOOD) for value in values], places),
            }
            for share, values in regrets.items()
        },
        "share_to_5pct": _ranks(shares, len(told)),
        "device_s_to_5pct": _ranks(seconds, len(told)),
        "p_score": p_score(profile, told, random),
        "path": [
            [share, statistics.fmean(at)]
            for i, share in enumerate(times())
            if len(at := known_of(r["paths"][profile][i] for r in told)) == len(told)
        ],
    }


def ahead_of(
    theirs: Sequence[dict[str, Any]], ours: Sequence[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return by how much our regret of `balanced` is lower at the largest budget, seed by seed.

    `by_half` has the mean of each half of each table that can tell, in their order: few tables
    make an interval that is narrower than it says.
    """
    share = str(SHARES[-1])
    gaps = [
        (their - our, row["place"])
        for row, other in zip(ours, theirs, strict=True)
        if (our := row["regrets"][share]["balanced"]) is not None
        and (their := other["regrets"][share]["balanced"]) is not None
    ]
    if not gaps:
        return None
    values, places = zip(*gaps, strict=True)
    return {**mean_of(values, places), "by_half": by_half(values, places)}


def mean_of(values: Sequence[float], places: Sequence[Place]) -> dict[str, float]:
    """Return the mean with its 95 % bootstrap interval: environments, halves of tables, seeds.

    In that order, since no number of seeds tells what other measurements, or another table, would
    have said. Of one table it is little more than the range of its two halves.
    """
    groups: dict[Hashable, dict[Hashable, list[float]]] = {}
    for value, (table, half) in zip(values, places, strict=True):
        groups.setdefault(table, {}).setdefault(half, []).append(value)
    tables = [[np.array(half) for half in halves.values()] for halves in groups.values()]
    draws = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        drawn = [
            draws.choice(halves[half], len(halves[half]))
            for halves in (tables[i] for i in draws.integers(len(tables), size=len(tables)))
            for half in draws.integers(len(halves), size=len(halves))
        ]
        means.append(np.concatenate(drawn).mean())
    lower, upper = np.quantile(means, (0.025, 0.975))
    return {"value": statistics.fmean(values), "lower": float(lower), "upper": float(upper)}


def p_score(
    profile: str, found: Sequence[dict[str, Any]], random: Sequence[dict[str, Any]]
) -> float | None:
    """Return how far a search is from random (0) to the optimum at once (1), over time.

    1 − Σ ours / Σ random, of the mean regrets at all times that both know; None where random has
    none.
    """
    pairs = []
    for index in range(POINTS):
        ours = known_of(r["paths"][profile][index] for r in found)
        theirs = known_of(r["paths"][profile][index] for r in random)
        if ours and theirs:
            pairs.append((statistics.fmean(ours), statistics.fmean(theirs)))
    ours_total, total = (sum(side) for side in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return 1 - ours_total / total if total > 0 else None


def by_half(values: Sequence[float], places: Sequence[Place]) -> list[float]:
    """Return the mean of each half of each table, in their order: what an interval is made of."""
    groups: dict[Place, list[float]] = {}
    for value, place in zip(values, places, strict=True):
        groups.setdefault(place, []).append(value)
    return [statistics.fmean(groups[place]) for place in sorted(groups, key=str)]


def _ranks(ordered: Sequence[float], number: int) -> dict[str, Any]:
    """Return median and 90th percentile of `number` replays, of which some never came near."""
    return {
        "median": _rank(ordered, 0.5, number),
        "p90": _rank(ordered, 0.9, number),
        "never": number - len(ordered),
    }


def _rank(ordered: Sequence[float], share: float, number: int) -> float | None:
    """Return a quantile of `number` values of which only the lowest are known."""
    index = math.ceil(share * number) - 1
    return ordered[index] if index < len(ordered) else None
