"""Profiles side by side: made-up ones whose verdicts are known, and those of a real study."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.profile import Profile
from storage.profile_files import read, write
from tests.conftest import Finished
from tuner.comparability import differences
from tuner.comparison import Comparison, compare, difference_of, errors_of, ratio_of
from tuner.contamination import is_noisy
from tuner.errors import UsageError
from tuner.profile_sources import Source
from tuner.report.comparison import print_comparison
from tuner.throughput import student_t

pytestmark = pytest.mark.timeout(600)

REFERENCES = {"random_return": 0.0, "random_se": 0.1, "best_return": 10.0}
PROFILE = Profile(
    profile="balanced",
    num_envs=64,
    num_steps=64,
    num_minibatches=4,
    num_epochs=4,
    device="cpu",
    expected_sps=100_000.0,
    expected_sps_ci95=(90_000.0, 110_000.0),
    quality_score=0.5,
    learning_rate=3e-4,
    hardware={"kind": "cpu", "platform": "cpu", "name": "a CPU", "cores": 2.0},
    versions={"jax": "0.10.0"},
    workload={"env": "stress", "env_params": {}, "network": [16], "ppo": {"learning_rate": 3e-4}},
    measured={
        "study": "one",
        "replicates": 1,
        "quality_sd": 0.01,
        "budget_env_steps": 1000,
        "quality_references": REFERENCES,
    },
)

Put = Callable[..., str]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a profile like `PROFILE` into a folder of its own and return its file."""

    def written(folder: str, **changes: Any) -> str:
        measured = {**PROFILE.measured, "study": folder, **changes.pop("measured", {})}
        return str(write(tmp_path / folder, replace(PROFILE, measured=measured, **changes)))

    return written


def verdicts(found: Comparison) -> tuple[str, str]:
    (against,) = found.against_first
    return against.throughput.verdict, against.quality.verdict


def test_fiellers_interval_by_hand() -> None:
    # r = 1.5, a = b = 0.1: 1.5 / 0.99 × (1 ± √(0.01 + 0.01 − 0.0001)).
    found = ratio_of(150.0, 0.1, 100.0, 0.1)
    assert (found.value, found.verdict) == (1.5, "higher")
    assert found.low == pytest.approx(1.5 / 0.99 * (1 - math.sqrt(0.0199)))
    assert found.high == pytest.approx(1.5 / 0.99 * (1 + math.sqrt(0.0199)))


def test_a_ratio_is_told_apart_from_one_just_where_the_difference_is_from_zero() -> None:
    # a·sps = 3 and b·first = 4: the difference must exceed 5.
    def verdict(sps: float) -> str:
        return ratio_of(sps, 3 / sps, 100.0, 0.04).verdict

    assert verdict(104.9) == verdict(95.1) == "cannot be told apart"
    assert (verdict(105.1), verdict(94.9)) == ("higher", "lower")


def test_a_first_profile_that_may_be_zero_leaves_no_upper_end() -> None:
    found = ratio_of(150.0, 0.1, 100.0, 1.2)
    assert (found.low, found.high, found.verdict) == (0.0, None, "cannot be told apart")


def test_unknown_spread_gives_a_ratio_and_no_verdict() -> None:
    found = ratio_of(150.0, None, 100.0, 0.1)
    assert (found.value, found.low, found.high, found.verdict) == (1.5, None, None, "unknown")


def test_equal_profiles_are_told_apart_once_in_twenty() -> None:
    draw = random.Random(0)
    number, a, b = 4_000, 0.05, 0.08  # half-widths of 1.96 standard deviations
    wrong = 0
    for _ in range(number):
        sps, first = (draw.gauss(1.0, error / 1.96) for error in (a, b))
        wrong += ratio_of(sps, a / sps, first, b / first).verdict != "cannot be told apart"
    # 5 %, within three standard errors of √(0.05 · 0.95 / 4000).
    assert wrong / number == pytest.approx(0.05, abs=0.0104)


def test_a_difference_of_qualities_by_hand() -> None:
    # Half-widths of 0.03 and 0.04 make 0.05.
    found = difference_of(0.56, 0.03, 0.5, 0.04)
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.11))
    assert found.verdict == "higher"
    assert difference_of(0.54, 0.03, 0.5, 0.04).verdict == "cannot be told apart"


def test_errors_of_a_profile_alone_by_hand(tmp_path: Path) -> None:
    # ± 10 % is for one more process after n = 1: √2 wider than the figure's own.
    found = errors_of(PROFILE, tmp_path)
    assert found.rests_on == "profile"
    assert found.sps == pytest.approx(0.1 / math.sqrt(2))
    # The baseline's three seeds leave two degrees of freedom.
    assert found.quality == pytest.approx(student_t(2) * 0.01)


def test_faster_slower_and_in_between(put: Put, tmp_path: Path) -> None:
    first = put("one")
    for sps, verdict in ((130e3, "higher"), (104e3, "cannot be told apart"), (75e3, "lower")):
        other = put("two", expected_sps=sps, expected_sps_ci95=(0.9 * sps, 1.1 * sps))
        assert verdicts(compare([first, other], tmp_path))[0] == verdict


def with_workload(**facts: Any) -> dict[str, Any]:
    return {"workload": {**PROFILE.workload, **facts}}


@pytest.mark.parametrize(
    ("changes", "speed", "quality"),
    [
        ({"hardware": {**PROFILE.hardware, "name": "another"}}, "higher", "higher"),
        (with_workload(env_params={"obs_dim": 9}), "not comparable", "not comparable"),
        (with_workload(network=[32]), "not comparable", "not comparable"),
        (with_workload(hash="0123"), "not comparable", "not comparable"),
        ({"workload": {}}, "not comparable", "not comparable"),
        (with_workload(ppo={"learning_rate": 3e-4, "gamma": 0.9}), "higher", "not comparable"),
        ({"learning_rate": 1e-3}, "higher", "not comparable"),
        ({"measured": {"budget_env_steps": 2000}}, "higher", "not comparable"),
        ({"measured": {"quality_references": {**REFERENCES, "best_return": 20.0}}}, "higher",
         "not comparable"),
        ({"measured": {"quality_references": {**REFERENCES, "num_evaluations": 4}}}, "higher",
         "not comparable"),
        ({"expected_sps": None, "quality_score": None}, "unknown", "unknown"),
    ],
)  # fmt: skip
def test_what_differs_decides_what_is_compared(
    changes: dict[str, Any], speed: str, quality: str, put: Put, tmp_path: Path
) -> None:
    better = {"expected_sps": 150e3, "expected_sps_ci95": (140e3, 160e3), "quality_score": 0.9}
    found = compare([put("one"), put("two", **{**better, **changes})], tmp_path)
    assert verdicts(found) == (speed, quality)


def test_a_default_that_an_older_profile_omits_is_no_difference() -> None:
    newer = {**PROFILE.workload, "normalize_obs": False, "clip_value_loss": False}
    first, other = (
        Source("", Path(), replace(PROFILE, workload=w)) for w in (PROFILE.workload, newer)
    )
    assert differences(first, other).workload == ()


@pytest.mark.parametrize(("adam_eps", "is_other"), [(1e-5, False), (1e-8, True)])
def test_an_older_profile_has_the_default_of_its_time(adam_eps: float, is_other: bool) -> None:
    newer = {**PROFILE.workload, "ppo": {"learning_rate": 3e-4, "adam_eps": adam_eps}}
    first, other = (
        Source("", Path(), replace(PROFILE, workload=w)) for w in (PROFILE.workload, newer)
    )
    assert bool(differences(first, other).workload) is is_other


def test_profiles_that_are_all_the_same_are_shown_once(
    put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [put("one"), put("two", measured={"study": "one"})]
    print_comparison(compare(same, tmp_path))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows if row].count("config") == 1


def test_kept_learning_is_no_evidence(put: Put, tmp_path: Path) -> None:
    one, other = ({"learning": [{"config": [64, 64, 4, 4], "quality_score": [q]}]} for q in (1, 2))
    kept = [put("one", measured=one), put("two", measured=one, expected_sps=200_000.0)]
    (against,) = compare(kept, tmp_path).against_first
    assert (against.throughput.verdict, against.quality.verdict) == ("higher", "same")
    apart = compare([kept[0], put("three", measured=other, expected_sps=200_000.0)], tmp_path)
    assert apart.against_first[0].quality.verdict == "cannot be told apart"


def test_the_same_measurements_are_no_evidence(put: Put, tmp_path: Path) -> None:
    assert verdicts(compare([put("one"), put("two")], tmp_path)) == ("same", "same")


def test_facts_that_anyone_may_have_written_break_nothing(
    put: Put, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = put(
        "two",
        expected_sps=1.5,
        notes="\x1b[2Jgone",
        hardware={"name": ["\x1b[2J"], "cores": "many", "memory_gb": math.nan},
        workload={"env": "\x1b[2J", "ppo": [1], "env_params": 7, "data": "x", "market": 3},
        measured={"study": ["x"], "replicates": "two", "trial": {}, "date": 7, "quality_sd": -1.0},
    )
    found = compare([put("one"), odd], tmp_path)
    print_comparison(found)
    assert "\x1b[2J" not in capsys.readouterr().out
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_name_is_a_study_or_one_of_its_profiles(finished: Finished) -> None:
    runs = finished.studies.folder / "runs"
    whole = compare(["done"], runs)
    assert [s.name for s in whole.sources] == ["done/balanced", "done/max_gpu", "done/max_quality"]
    file = str(runs / "done" / "profiles" / "max_gpu.yaml")
    two = compare(["done/balanced", file], runs)
    assert [s.name for s in two.sources] == ["done/balanced", file]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["done/balanced"], "at least two different profiles"),
        (["done/balanced", "done/balanced"], "at least two different profiles"),
        (["done", "done/best"], "NAME/max_quality, but got 'done/best'"),
        (["done", "../done"], "but got '../done'"),
        (["done", "nowhere.yaml"], "but got 'nowhere.yaml'"),
    ],
)
def test_what_is_no_profile_is_refused(
    arguments: list[str], words: str, finished: Finished
) -> None:
    with pytest.raises(UsageError, match=words):
        compare(arguments, finished.studies.folder / "runs")


def test_a_study_without_profiles_says_how_to_write_them(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(UsageError, match="tuner export bare"):
        compare(["bare"], tmp_path)


def test_a_real_study_lends_its_repeats(finished: Finished) -> None:
    runs = finished.studies.folder / "runs"
    found = errors_of(read(runs / "done" / "profiles" / "balanced.yaml"), runs)
    records = finished.studies.records("done")
    disturbed = [record for record in records if record.contaminated]
    assert (disturbed and not is_noisy(records)) or found.rests_on == "repeats"
    assert found.sps is not None
    assert found.quality is not None


def test_compare_prints_one_document(finished: Finished) -> None:
    ended = finished.studies.run("compare", "done", "--json")
    assert (ended.code, ended.err) == (0, "")
    document = json.loads(ended.out)
    assert [p["name"] for p in document["profiles"]] == [
        "done/balanced", "done/max_gpu", "done/max_quality"
    ]  # fmt: skip
    for profile in document["profiles"]:
        own = read(profile["file"] if Path(profile["file"]).is_absolute()
                   else finished.studies.folder / profile["file"])  # fmt: skip
        assert profile["expected_sps"] == own.expected_sps
    assert {c["against"] for c in document["comparisons"]} == {"done/balanced"}
    assert all(
        {"throughput_ratio", "quality_difference"} <= set(c) for c in document["comparisons"]
    )
