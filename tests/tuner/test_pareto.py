import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.pareto import pareto_front

# Few distinct values, so that equal coordinates and duplicates are common.
POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), max_size=25)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(max(a, b) == a for a, b in zip(one, other, strict=True))


def test_front_of_a_plane() -> None:
    #   y
    #   4 | A
    #   3 |    .  B        (2, 3) is as high as B, but left of it
    #   2 |       .        (3, 2) is right below B
    #   1 | .           C  (1, 1) is left of C and below A
    #     +--------------- x
    #       1  2  3     5
    points = [(1, 4), (2, 3), (3, 3), (3, 2), (1, 1), (5, 1)]
    assert pareto_front(points) == [0, 2, 5]


def test_duplicates_all_stay() -> None:
    assert pareto_front([(1, 2), (2, 1), (1, 2), (0, 0)]) == [0, 1, 2]


def test_one_dimension_keeps_the_highest() -> None:
    assert pareto_front([(1,), (3,), (2,), (3,)]) == [1, 3]


def test_nothing_has_an_empty_front() -> None:
    assert pareto_front([]) == []


def test_points_must_be_alike_and_known() -> None:
    with pytest.raises(ValueError, match="points must have equal length, but got lengths"):
        pareto_front([(1, 2), (1, 2, 3)])
    with pytest.raises(ValueError, match="coordinates must be numbers, but got NaN"):
        pareto_front([(1, 2), (1, math.nan)])


@given(POINTS)
def test_no_member_is_dominated(points: list[tuple[float, ...]]) -> None:
    for index in pareto_front(points):
        assert not any(dominates(other, points[index]) for other in points)


@given(POINTS)
def test_every_other_point_is_dominated_by_a_member(points: list[tuple[float, ...]]) -> None:
    front = pareto_front(points)
    for index in set(range(len(points))) - set(front):
        assert any(dominates(points[member], points[index]) for member in front)


@given(POINTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(points: list[tuple[float, ...]], generator: object) -> None:
    shuffled = list(points)
    generator.shuffle(shuffled)  # type: ignore[attr-defined]
    front = sorted(points[index] for index in pareto_front(points))
    assert front == sorted(shuffled[index] for index in pareto_front(shuffled))


def test_ten_thousand_points_are_not_compared_pair_by_pair() -> None:
    class Counted(float):
        comparisons = 0

        def __ge__(self, other: float) -> bool:
            Counted.comparisons += 1
            return float(self) >= other

    # Of each n points on the diagonal only the last is on the front.
    points = [(Counted(n), Counted(n), Counted(n)) for n in range(10_000)]
    assert pareto_front(points) == [9_999]
    assert Counted.comparisons == 3 * 9_999
