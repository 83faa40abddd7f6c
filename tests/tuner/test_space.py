import itertools

from hypothesis import given
from hypothesis import strategies as st

from tuner.space import (
    CPU_BASELINE,
    CPU_SPACE,
    DIMENSIONS,
    GPU_BASELINE,
    GPU_SPACE,
    HardwareConfig,
    SearchSpace,
)

choices = st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True).map(
    lambda numbers: tuple(sorted(numbers))
)
spaces = st.builds(SearchSpace, choices, choices, choices, choices)


def test_the_gpu_space_is_that_of_the_contract() -> None:
    assert GPU_SPACE.num_envs == (512, 1024, 2048, 4096, 8192, 12288, 16384)
    assert GPU_SPACE.num_steps == (128, 256, 384, 512)
    assert GPU_SPACE.num_minibatches == (4, 8, 16)
    assert GPU_SPACE.num_epochs == (4, 8)
    assert HardwareConfig(2048, 128, 8, 4) == GPU_BASELINE


def test_the_cpu_space_is_that_of_the_contract() -> None:
    assert CPU_SPACE.num_envs == (8, 16, 32, 64, 128, 256, 512)
    assert CPU_SPACE.num_steps == (16, 32, 64, 128)
    assert CPU_SPACE.num_minibatches == (2, 4, 8)
    assert CPU_SPACE.num_epochs == (2, 4)
    assert HardwareConfig(64, 64, 4, 4) == CPU_BASELINE


def test_both_spaces_have_168_valid_configs_and_hold_their_baseline() -> None:
    # 7 × 4 × 3 × 2 = 168, and every batch divides.
    for space, baseline in ((GPU_SPACE, GPU_BASELINE), (CPU_SPACE, CPU_BASELINE)):
        assert len(space.configs()) == len(set(space.configs())) == 168
        assert baseline in space.configs()


def test_batch_and_minibatch_are_env_steps() -> None:
    config = HardwareConfig(2048, 128, 8, 4)
    assert config.batch_size == 262_144
    assert config.minibatch_size == 32_768
    assert config.is_valid


def test_a_batch_that_does_not_divide_is_not_in_the_space() -> None:
    # Batches of 3 × 5 = 15 and 4 × 5 = 20: 15 divides into 3, 20 into 2; nothing else.
    space = SearchSpace((3, 4), (5,), (2, 3), (1,))
    assert space.configs() == [HardwareConfig(3, 5, 3, 1), HardwareConfig(4, 5, 2, 1)]


def test_only_leaves_these_combinations_of_the_choices() -> None:
    wanted = frozenset({HardwareConfig(8, 16, 2, 1), HardwareConfig(16, 8, 2, 1)})
    outside = HardwareConfig(64, 8, 2, 1)
    space = SearchSpace((8, 16), (8, 16), (2,), (1,), only=wanted | {outside})
    assert space.configs() == sorted(wanted)
    assert space.config_set() == wanted


@given(spaces)
def test_configs_are_exactly_the_valid_combinations_in_order(space: SearchSpace) -> None:
    combinations = itertools.product(*(getattr(space, name) for name in DIMENSIONS))
    expected = [HardwareConfig(*c) for c in combinations if c[0] * c[1] % c[2] == 0]
    assert space.configs() == sorted(expected)


def test_a_config_is_written_as_people_say_it() -> None:
    assert str(HardwareConfig(4096, 256, 8, 4)) == "4096x256 mb8 ep4"
    assert list(HardwareConfig(1, 2, 3, 4).as_dict()) == list(DIMENSIONS)
