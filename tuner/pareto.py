"""The non-dominated front.

Apart from the profiles because it knows no units and no study: it compares tuples of numbers.
"""

import operator
from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Return the indices of the points that no other point dominates, in ascending order.

    A point dominates another when it is at least as high in every coordinate and higher in one.
    Equal points do not dominate each other: duplicates of a front point all stay.

    Args:
        points: n points of equal length, every coordinate to be maximised.

    Raises:
        ValueError: Points of unequal length, or a coordinate that is NaN.
    """
    if len({len(point) for point in points}) > 1:
        lengths = sorted({len(point) for point in points})
        raise ValueError(
            f"points must have equal length, but got lengths {lengths}; "
            "compare only what every point has"
        )
    if any(value != value for point in points for value in point):
        raise ValueError("coordinates must be numbers, but got NaN; leave out what is unknown")
    front: list[tuple[float, ...]] = []
    # What dominates a point comes before it in this order, and something on the front does too.
    for point in sorted(set(map(tuple, points)), reverse=True):
        if not any(_dominates(member, point) for member in front):
            front.append(point)
    members = set(front)
    return [index for index, point in enumerate(points) if tuple(point) in members]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether one of two different points is nowhere below the other."""
    return all(map(operator.ge, one, other))
