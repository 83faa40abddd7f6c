"""Where a profile's config lies in another space, and which trials a search begins with."""

import optuna
import pytest

from storage.profile import Profile
from tests.conftest import Finished
from tests.tuner.studies import SMALL, Studies, config_of
from tuner import warm_start
from tuner.search.sampler import make_sampler
from tuner.space import HardwareConfig, SearchSpace

SPACE = SearchSpace((8, 16, 64), (16, 32), (2, 4), (2,))


def profile(*numbers: int, name: str = "balanced") -> Profile:
    envs, steps, minibatches, epochs = numbers
    return Profile(profile=name, num_envs=envs, num_steps=steps, num_minibatches=minibatches,
                   num_epochs=epochs)  # fmt: skip


def test_a_config_of_the_space_is_itself() -> None:
    for config in SPACE.configs():
        assert warm_start.nearest(config, SPACE) == config


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        # log2(32) lies between those of 16 and 64 alike: the first. 128 steps are beyond the end.
        ((32, 128, 2, 2), (16, 32, 2, 2)),
        # 33 is nearer to 64 by its ratio, though not by its difference.
        ((33, 16, 4, 1), (64, 16, 4, 2)),
        ((1, 1, 1, 1), (8, 16, 2, 2)),
    ],
)
def test_the_nearest_config_is_that_of_the_smallest_ratios(
    wanted: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert warm_start.nearest(HardwareConfig(*wanted), SPACE) == HardwareConfig(*expected)


def test_what_is_begun_with_is_told_in_one_line_and_once_each() -> None:
    profiles = [profile(16, 32, 2, 2), profile(4096, 256, 8, 4, name="max_gpu"),
                profile(16, 32, 2, 2, name="max_quality")]  # fmt: skip
    lines: list[str] = []
    warm_start.tell(warm_start.starts_in(profiles, SPACE), lines.append)
    assert lines == [
        "warm start after the baseline: 16x32 mb2 ep2 (balanced), "
        "64x32 mb4 ep2 (max_gpu, nearest to 4096x256 mb8 ep4)"
    ]


def test_queued_configs_are_tried_first_and_queued_once() -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler("auto", SPACE, seed=0))
    starts = warm_start.starts_in([profile(64, 32, 2, 2), profile(8, 16, 4, 2)], SPACE)
    facts = {warm_start.FACT: warm_start.as_fact(starts)}
    found = []
    for _ in range(3):
        warm_start.queue(study, facts)  # as after a kill between two trials
        trial = study.ask()
        for name, choices in SPACE.choices().items():
            trial.suggest_categorical(name, choices)
        found.append(HardwareConfig(**trial.params))
        study.tell(trial, 0.5)
    assert found[:2] == [start.config for start in starts]
    assert found[2] not in found[:2]


@pytest.mark.long
def test_a_study_begins_with_the_configs_of_another_ones_profiles(
    finished: Finished, studies: Studies
) -> None:
    folder = finished.studies.folder / "runs" / "done" / "profiles"
    ended = studies.start("warm", *SMALL, "--trials", "2",
                          "--warm-start", str(folder / "max_quality.yaml"))  # fmt: skip
    assert ended.code in (0, 7), ended.err
    assert "warm start after the baseline: " in ended.err
    first = studies.facts("warm")[warm_start.FACT][0]
    tried = [config_of(r) for r in studies.records("warm") if r.replicate == 0]
    assert HardwareConfig(**first) == tried[1 if tried[0] != HardwareConfig(**first) else 0]
