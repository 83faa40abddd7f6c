"""A front measured anew: what the new study is told, and one real transfer."""

import json
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest

from storage.profile import Profile
from storage.profile_files import read
from tests.conftest import Finished
from tests.tuner.studies import Studies, config_of
from tuner.config import StudyConfig
from tuner.errors import Refused, UsageError
from tuner.kept_learning import FACT, KeptLearning
from tuner.report.overview import front_of
from tuner.report.reading import read_study
from tuner.settings import load_config
from tuner.space import DIMENSIONS, HardwareConfig
from tuner.transfer import keep, transfer_config

pytestmark = pytest.mark.timeout(600)

ORIGIN = {"study": "done", "hardware": "a CPU"}


@pytest.fixture
def profile(finished: Finished) -> Profile:
    return read(finished.studies.folder / "runs" / "done" / "profiles" / "balanced.yaml")


def edited(profile: Profile, **measured: Any) -> Profile:
    return replace(profile, measured={**profile.measured, **measured})


def test_a_profile_names_the_front_and_the_baseline_of_its_study(
    profile: Profile, finished: Finished
) -> None:
    study = read_study("done", {"runs_dir": str(finished.studies.folder / "runs")})
    front = {s.config for s in study.summaries if s.trial in front_of(study)}
    config = transfer_config(profile, {})
    assert set(config.only or ()) == front
    assert config.baseline == HardwareConfig(32, 16, 2, 2)
    assert config.env_steps == 16_384
    assert set(config.resolved("gpu").space().configs()) == front


def test_a_transfer_keeps_the_workload(profile: Profile, finished: Finished) -> None:
    stored = load_config(finished.studies.facts("done")["config"], {})
    assert transfer_config(profile, {}).resolved("gpu").workload() == stored.workload()


def test_its_settings_survive_being_stored(profile: Profile) -> None:
    config = transfer_config(profile, {"budget": "5m"}).resolved("cpu")
    assert load_config(config.as_data(), {}) == config


def test_a_profile_without_front_gives_its_own_config(profile: Profile) -> None:
    config: StudyConfig = transfer_config(edited(profile, front=None, baseline=None), {})
    assert config.only == (HardwareConfig(*(getattr(profile, n) for n in (
        "num_envs", "num_steps", "num_minibatches", "num_epochs"))),)  # fmt: skip
    assert config.baseline is None  # this machine's own, once its device is known
    assert config.min_feasible == 1


def test_flags_win(profile: Profile) -> None:
    flags = {"baseline": "8,16,2,2", "env_steps": "512", "weights": "1,0,0", "min_feasible": "2"}
    config = transfer_config(profile, flags)
    assert config.baseline == HardwareConfig(8, 16, 2, 2)
    assert (config.env_steps, config.weights, config.min_feasible) == (512, (1.0, 0.0, 0.0), 2)


@pytest.mark.parametrize("baseline", ["16,16,2,2", "64,16,2,2"])
def test_a_scaled_rate_stays_the_profiles_own_whatever_the_baseline(
    baseline: str, profile: Profile
) -> None:
    own = HardwareConfig(16, 32, 2, 2)
    # A minibatch of 256 against the recorded baseline's 128: √2 × 3e-4.
    scaled = replace(
        edited(profile, baseline=[16, 16, 2, 2], front=None),
        **own.as_dict(), lr_scaling="sqrt", learning_rate=3e-4 * 2**0.5,
    )  # fmt: skip
    config = transfer_config(scaled, {"baseline": baseline})
    assert config.learning_rate_for(own) == pytest.approx(3e-4 * 2**0.5)


def test_a_scaled_rate_needs_a_baseline(profile: Profile) -> None:
    scaled = replace(edited(profile, baseline=None), lr_scaling="sqrt")
    with pytest.raises(UsageError, match="--baseline must be given"):
        transfer_config(scaled, {})


@pytest.mark.parametrize(
    "facts", [{"front": "x"}, {"front": [[1, 2]]}, {"baseline": 7}, {"weights": [0, 0, 0]}]
)
def test_facts_that_export_never_writes_are_refused(
    facts: dict[str, Any], profile: Profile
) -> None:
    with pytest.raises(UsageError, match=f"measured.{next(iter(facts))} must be as"):
        transfer_config(edited(profile, **facts), {})


def test_an_edited_workload_is_refused(profile: Profile) -> None:
    with pytest.raises(Refused, match="it was edited"):
        transfer_config(replace(profile, workload={**profile.workload, "activation": "relu"}), {})


def test_what_the_front_learned_is_kept(profile: Profile, finished: Finished) -> None:
    config = transfer_config(profile, {})
    kept = keep(profile, config, ORIGIN)
    assert isinstance(kept, KeptLearning)
    assert kept.origin == "done, measured on a CPU"
    records = finished.studies.records("done")
    for hardware in (*(config.only or ()), HardwareConfig(32, 16, 2, 2)):
        learning = kept.learning_of(hardware)
        assert learning is not None
        known = [r.quality_score for r in records if config_of(r) == hardware]
        assert set(learning.quality_score) <= set(known)
        assert learning.curve.env_steps[-1] == kept.env_steps == 16_384
    assert json.loads(kept.model_dump_json()) == kept.model_dump(mode="json")
    assert KeptLearning.of({FACT: kept.model_dump(mode="json")}) == kept


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"baseline": "8,8,2,2"}, "the baseline is not that"),
        ({"env_steps": "512"}, "--env-steps is not that"),
        ({"goal": "time-to-return"}, "the training itself is timed"),
    ],
)
def test_what_cannot_be_kept_is_measured(
    flags: dict[str, str], reason: str, profile: Profile
) -> None:
    assert reason in str(keep(profile, transfer_config(profile, flags), ORIGIN))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"source": "0" * 16}, "ran other code"),
        ({"quality_references": None}, "does not hold what its study's configs learned"),
        ({"seconds_to_target": 3.0}, "the training itself is timed"),
    ],
)
def test_what_was_learned_otherwise_is_measured(
    facts: dict[str, Any], reason: str, profile: Profile
) -> None:
    assert reason in str(keep(edited(profile, **facts), transfer_config(profile, {}), ORIGIN))


def test_a_baseline_of_too_few_trainings_is_measured(profile: Profile) -> None:
    figures = ("quality_score", "acceptable", "mean_return", "entropy")
    learning = [e | {f: e[f][:1] for f in figures} for e in profile.measured["learning"]]
    found = keep(edited(profile, learning=learning), transfer_config(profile, {}), ORIGIN)
    assert "trained less than 3 times" in str(found)


def test_learning_that_was_kept_says_where_it_was_measured(profile: Profile) -> None:
    told = edited(profile, learning_from="first, measured on another")
    kept = keep(told, transfer_config(profile, {}), ORIGIN)
    assert isinstance(kept, KeptLearning)
    assert kept.origin == "first, measured on another"


@pytest.mark.parametrize(
    "learning", [7, [], [{}], [{"config": [1, 2, 3, 4], "quality_score": [2.0]}]]
)
def test_learning_that_export_never_writes_is_refused(learning: Any, profile: Profile) -> None:
    with pytest.raises(UsageError, match=r"measured\.learning must be as"):
        keep(edited(profile, learning=learning), transfer_config(profile, {}), ORIGIN)


@pytest.mark.long
def test_a_transfer_can_measure_learning_too(copied: Studies) -> None:
    flags = ("--learning", "measured", "--repeat-disturbed", "false")
    ended = copied.run("transfer", "done", "here", *flags)
    assert ended.code == 0, ended.err
    assert "every figure was measured here" in " ".join(ended.out.split())
    assert copied.facts("here").get(FACT) is None


@pytest.mark.long
def test_a_transfer_tries_the_front_and_nothing_else(copied: Studies) -> None:
    ended = copied.run("transfer", "done", "here", "--repeat-disturbed", "false")
    assert ended.code == 0, ended.err
    assert "learning is kept from there" in " ".join(ended.out.split())
    assert "a transfer: tried the front of done" in " ".join(ended.out.split())
    assert "tuner compare done/balanced here" in ended.err
    old = read(copied.folder / "runs" / "done" / "profiles" / "balanced.yaml")
    new = read(copied.folder / "runs" / "here" / "profiles" / "balanced.yaml")
    tried = {config_of(r) for r in copied.records("here")}
    front = {HardwareConfig(*numbers) for numbers in old.measured["front"]}
    assert tried == front | {HardwareConfig(32, 16, 2, 2)}
    assert new.measured["transferred_from"]["study"] == "done"
    assert new.workload == old.workload
    # Of one workload, budget and scale: even quality can be compared.
    assert new.measured["learning"] == old.measured["learning"]
    assert "its learning is kept from done" in (new.notes or "")
    own = HardwareConfig(*(getattr(new, name) for name in DIMENSIONS))
    (learned,) = [e for e in new.measured["learning"] if e["config"] == [*own.as_dict().values()]]
    assert new.measured["trainings"] == len(learned["quality_score"])
    assert new.measured["env_steps"] == old.measured["env_steps"]
    assert new.quality_score == pytest.approx(fmean(learned["quality_score"]), rel=1e-3)
    document = copied.run("compare", "done/balanced", "here/balanced")
    assert "DIFFERS" not in document.out
    assert "not comparable" not in document.out
    assert copied.run("transfer", "done", "here").code == 4
