"""Memory of a whole space from one program for each batch and number of minibatches."""

from collections.abc import Callable

import pytest

from tuner.footprint import Footprint, Program, footprint
from tuner.space import GPU_SPACE, HardwareConfig, SearchSpace

SPACE = SearchSpace((1, 2, 4, 8, 16), (100, 200, 400), (4,), (2, 4))
"""Batches of 100, 200, … 6400: seven, each in one to three shapes."""


def made_up(config: HardwareConfig) -> Program:
    """A program of the form that PPO's have, with jumps that no line goes through."""
    arguments = 1000 + 50 * config.num_envs
    jump = 77 * (config.batch_size % 3) * config.batch_size
    return Program(arguments + 700 * config.batch_size + jump, arguments)


def fill(
    space: SearchSpace,
    compile_one: Callable[[HardwareConfig], Program] = made_up,
    *,
    of_ppo: bool = True,
) -> tuple[Footprint, dict[HardwareConfig, Program]]:
    """Compile what is wanted until nothing more is."""
    known: dict[HardwareConfig, Program] = {}
    while wanted := (found := footprint(space.configs(), known, of_ppo=of_ppo)).wanted:
        assert not wanted & known.keys()
        known |= {config: compile_one(config) for config in wanted}
    return found, known


def test_one_program_for_each_batch_tells_the_memory_of_all_exactly() -> None:
    found, known = fill(SPACE)
    assert set(found.rows) == set(SPACE.configs())
    # Seven batches, other epochs of one and another shape of one.
    assert len(known) == 7 + 2
    assert found.largest_difference == 0
    for config, row in found.rows.items():
        assert row.bytes == made_up(config).predicted_bytes
        assert row.source == ("compiled" if config in known else "derived")


@pytest.mark.parametrize("by", ["num_steps", "num_epochs"])
def test_programs_that_should_take_the_same_and_do_not_have_all_compiled(by: str) -> None:
    def uneven(config: HardwareConfig) -> Program:
        return Program(700 * config.batch_size * (1 + getattr(config, by)), 0)

    found, known = fill(SPACE, uneven)
    assert set(known) == set(SPACE.configs())
    assert found.largest_difference is not None
    assert found.largest_difference > 0.1


def test_of_a_trainer_of_the_user_s_nothing_is_taken_for_granted() -> None:
    found, known = fill(SPACE, of_ppo=False)
    assert set(known) == set(SPACE.configs())
    assert {row.source for row in found.rows.values()} == {"compiled"}


def test_one_that_does_not_compile_says_why_and_the_rest_is_told() -> None:
    def failing(config: HardwareConfig) -> Program:
        return Program(failed="no") if config.batch_size == 6400 else made_up(config)

    found, _ = fill(SPACE, failing)
    assert set(found.rows) == set(SPACE.configs())
    assert {c.batch_size for c, row in found.rows.items() if row.source == "failed"} == {6400}
    assert found.rows[HardwareConfig(16, 400, 4, 2)].reason == "no"
    assert all(row.bytes == made_up(c).predicted_bytes
               for c, row in found.rows.items() if row.source != "failed")  # fmt: skip


@pytest.mark.parametrize(
    "space",
    [
        SearchSpace((8,), (16,), (2,), (2,)),
        SearchSpace((8,), (16,), (2,), (2, 4)),
        SearchSpace((8, 16), (16,), (2, 4), (2,)),
        SearchSpace((8, 12, 24), (16, 24, 32), (2, 4), (2, 4)),
    ],
)
def test_small_spaces(space: SearchSpace) -> None:
    found, _ = fill(space)
    for config in space.configs():
        assert found.rows[config].bytes == made_up(config).predicted_bytes


def test_the_default_space_needs_47_programs() -> None:
    found, known = fill(GPU_SPACE)
    assert len(found.rows) == 168
    # Fifteen batches of three numbers of minibatches, and two to check.
    assert len(known) == 15 * 3 + 2
