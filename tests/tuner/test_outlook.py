"""What a model believes is still to be had, on scores whose best is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from storage.records import TrialRecord
from tests.benchmarks.made_up_grid import quality, update_s
from tests.tuner.measurements import failure, record
from tuner.outlook import FEWEST, expected_excess, in_words, outlook, percent
from tuner.space import HardwareConfig, SearchSpace
from tuner.stopping import reason_to_stop

SPACE = SearchSpace((16, 64, 256), (16, 64), (2, 4), (2, 4))
CONFIGS = sorted(SPACE.configs(), key=lambda config: -quality(config))


def scored(configs: list[HardwareConfig]) -> list[TrialRecord]:
    """Return a trial for each config, in that order, with the quality made up for it as score."""
    return [
        record(n, **config.as_dict(), final_score=quality(config),
               sps=config.batch_size / update_s(config))
        for n, config in enumerate(configs)
    ]  # fmt: skip


def test_the_excess_of_one_and_of_two_values_is_that_of_the_textbook() -> None:
    # E[max(0, Z)] = 1/√(2π), E[max(0, Z₁, Z₂)] = (2 + √2) / (2√(2π)).
    zeros, ones = np.zeros(2), np.ones(2)
    assert expected_excess(zeros[:1], ones[:1], 0.0) == pytest.approx(0.39894, abs=1e-3)
    two = (2 + math.sqrt(2)) / (2 * math.sqrt(2 * math.pi))
    assert expected_excess(zeros, ones, 0.0) == pytest.approx(two, abs=1e-3)
    assert expected_excess(zeros, 1e-3 * ones, 5.0) == 0.0


def test_what_is_left_is_more_where_the_best_half_is_untried() -> None:
    rest, best = CONFIGS[12:], CONFIGS[:12]
    with_best, without = outlook(scored(best), SPACE), outlook(scored(rest), SPACE)
    assert with_best is not None
    assert without is not None
    assert with_best.share < 0.01 < without.share
    assert (with_best.num_untried, with_best.num_scored) == (12, 12)
    assert with_best.best == quality(CONFIGS[0])


def test_nothing_is_said_of_few_configs_nor_of_an_exhausted_space() -> None:
    assert outlook(scored(CONFIGS[: FEWEST - 1]), SPACE) is None
    assert outlook(scored(CONFIGS), SPACE) is None
    assert outlook([failure(n, "oom") for n in range(12)], SPACE) is None


def test_why_nothing_is_said_is_said() -> None:
    few = in_words(scored(CONFIGS[: FEWEST - 1]), SPACE)
    assert few == f"not known: a model of it needs {FEWEST} scored configs, and there are 7"
    assert in_words(scored(CONFIGS), SPACE).startswith("nothing in this space")
    known = scored(CONFIGS[12:])
    assert in_words(known, SPACE) == str(outlook(known, SPACE))


def test_a_share_below_a_limit_is_not_shown_as_the_limit() -> None:
    assert percent(0.00999) == "0.9 %"
    assert percent(0.01) == "1.0 %"
    assert percent(0.0009) == "less than 0.1 %"


def test_what_does_not_fit_is_not_to_be_had() -> None:
    tried = [config for config in CONFIGS if config.num_envs < 256]
    lost = HardwareConfig(256, 16, 4, 2)  # no other of 256 environments takes less
    ooms = [replace(failure(99, "oom"), **lost.params())]
    assert outlook(scored(tried), SPACE) is not None
    assert outlook([*scored(tried), *ooms], SPACE) is None


def test_a_config_that_may_be_no_profile_is_nothing_to_be_content_with() -> None:
    records = scored(CONFIGS[:12])
    found = outlook([replace(records[0], quality_acceptable=False), *records[1:]], SPACE)
    assert found is not None
    assert found.best == quality(CONFIGS[1])


def test_a_small_regret_ends_a_search_after_the_least_number_of_trials() -> None:
    asked = {"trials": None, "patience": 99, "min_gain": 0.0, "untried": 8, "time_left_s": None,
             "space": SPACE}  # fmt: skip
    records = scored(CONFIGS[:16])
    reason = reason_to_stop(records, **asked, min_trials=16, until_regret=0.01)
    assert reason is not None
    assert reason.startswith("less than 1 % of the score is expected to be left to gain (")
    assert reason_to_stop(records[::-1], **asked, min_trials=16, until_regret=0.01) == reason
    assert reason_to_stop(records, **asked, min_trials=17, until_regret=0.01) is None
    assert reason_to_stop(records, **asked, min_trials=16) is None
    far = scored(CONFIGS[8:])
    assert reason_to_stop(far, **asked, min_trials=16, until_regret=0.01) is None
