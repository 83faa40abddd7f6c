"""Memory of a whole space from a few programs, on figures that real compilations gave."""

import pytest

from tuner.interpolation import TOLERANCE, Estimate, Program, estimate
from tuner.space import GPU_SPACE, HardwareConfig, SearchSpace

SPACE = SearchSpace((1, 2, 4, 8, 16), (100, 200, 400), (4,), (2, 4))


def made_up(config: HardwareConfig) -> Program:
    """A program of the form that PPO's have: arguments by environments, the rest by the batch."""
    arguments = 1000 + 50 * config.num_envs
    return Program(arguments + 700 * config.batch_size + 90 * config.minibatch_size, arguments)


def fill(
    space: SearchSpace, compile_one: object = made_up, *, of_ppo: bool = True
) -> tuple[Estimate, dict[HardwareConfig, Program]]:
    """Compile what is wanted until nothing more is."""
    known: dict[HardwareConfig, Program] = {}
    while wanted := (found := estimate(space.configs(), known, of_ppo=of_ppo)).wanted:
        assert not wanted & known.keys()
        known |= {config: compile_one(config) for config in wanted}  # type: ignore[operator]
    return found, known


def test_a_few_programs_tell_the_memory_of_all() -> None:
    found, known = fill(SPACE)
    assert set(found.rows) == set(SPACE.configs())
    assert len(known) < len(SPACE.configs()) / 3
    for config, row in found.rows.items():
        assert row.bytes == pytest.approx(made_up(config).predicted_bytes, abs=1)
        assert (row.source == "compiled") == (config in known)


def test_what_was_not_compiled_says_so() -> None:
    found, known = fill(SPACE)
    batches = {config.batch_size for config in known}
    derived = {c for c, row in found.rows.items() if row.source == "derived"}
    assert derived == {c for c in SPACE.configs() if c not in known and c.batch_size in batches}
    # Other epochs of a compiled config are derived, never interpolated.
    assert HardwareConfig(16, 400, 4, 4) in derived
    assert {row.source for c, row in found.rows.items() if c.batch_size not in batches} == {
        "interpolated"
    }


def test_a_jump_is_found_and_no_stretch_reaches_over_it() -> None:
    def jumping(config: HardwareConfig) -> Program:
        program = made_up(config)
        more = 2_000_000 if config.batch_size >= 1600 else 0
        assert program.predicted_bytes is not None
        return Program(program.predicted_bytes + more, program.argument_bytes)

    found, known = fill(SPACE, jumping)
    for config, row in found.rows.items():
        assert row.bytes == pytest.approx(jumping(config).predicted_bytes, rel=0.03)
    assert {800, 1600} <= {config.batch_size for config in known}


def test_memory_that_falls_as_the_batch_grows_is_not_interpolated_over() -> None:
    def falling(config: HardwareConfig) -> Program:
        return Program(10_000_000 - config.batch_size, 0)

    found, _ = fill(SPACE, falling)
    assert "interpolated" not in {row.source for row in found.rows.values()}


def test_shapes_of_one_batch_that_differ_have_no_form_and_all_are_compiled() -> None:
    def uneven(config: HardwareConfig) -> Program:
        return Program(700 * config.batch_size * (1 + config.num_steps // 100), 0)

    found, known = fill(SPACE, uneven)
    assert set(known) == set(SPACE.configs())
    assert found.form_error is not None
    assert found.form_error > 0.1


def test_of_a_trainer_of_the_user_s_nothing_is_taken_for_granted() -> None:
    found, known = fill(SPACE, of_ppo=False)
    assert set(known) == set(SPACE.configs())
    assert {row.source for row in found.rows.values()} == {"compiled"}


def test_one_that_does_not_compile_is_told_and_the_rest_compiled() -> None:
    def failing(config: HardwareConfig) -> Program:
        return Program(failed="no") if config.batch_size == 6400 else made_up(config)

    found, _ = fill(SPACE, failing)
    assert {c.batch_size for c, row in found.rows.items() if row.source == "failed"} == {6400}
    assert found.rows[HardwareConfig(16, 400, 4, 2)].reason == "no"
    assert {row.source for row in found.rows.values()} == {"compiled", "failed"}


@pytest.mark.parametrize(
    "space",
    [
        SearchSpace((8,), (16,), (2,), (2,)),
        SearchSpace((8,), (16,), (2,), (2, 4)),
        SearchSpace((8, 16), (16,), (2, 4), (2,)),
    ],
)
def test_small_spaces(space: SearchSpace) -> None:
    found, _ = fill(space)
    for config, row in found.rows.items():
        assert row.bytes == made_up(config).predicted_bytes


def test_the_default_space_needs_a_program_for_each_batch_at_most() -> None:
    _, known = fill(GPU_SPACE)
    assert len(known) <= 12
    assert len(GPU_SPACE.configs()) == 168
    assert TOLERANCE < 0.03
