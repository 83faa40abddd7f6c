"""A study of several learning rates: a fifth number of its configs, and nothing without it."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from storage.database import sqlite_url
from storage.profile import Profile
from storage.profile_files import read
from storage.recovery import queue_again
from storage.telemetry import Telemetry
from tests.tuner.measurements import record
from tests.tuner.studies import SPACE, WORKLOAD, Studies, config_of
from tuner import warm_start
from tuner.aggregate import objectives, summarise
from tuner.comparability import differences
from tuner.config import StudyConfig
from tuner.errors import Refused, UsageError
from tuner.lookup import refuse_other_settings
from tuner.profile_sources import Source
from tuner.report.reading import StudyReading
from tuner.report.space_map import heat_map
from tuner.search.sampler import make_sampler, untried
from tuner.search.surrogate import Scale, Surrogate
from tuner.settings import load_config
from tuner.space import HardwareConfig, SearchSpace
from tuner.space import config_of as config_of_params
from tuner.transfer import transfer_config
from tuner.workload import is_of, require_sound, workload_facts

RATES = (1e-3, 3e-4, 3e-3)
TWO = SearchSpace((8, 16), (16, 32), (2,), (2,), learning_rate=RATES)
SETTINGS: dict[str, Any] = {"num_envs": "8,16", "num_steps": "16,32", "num_minibatches": "2",
                            "num_epochs": "2", "learning_rate": "1e-3,3e-4,3e-3"}  # fmt: skip


def config(**settings: Any) -> StudyConfig:
    return load_config(None, {**SETTINGS, **settings}).resolved("cpu")


def profile(settings: StudyConfig, hardware: HardwareConfig, **measured: Any) -> Profile:
    """Return what a study exports of one of its configs."""
    own = settings.model_copy(update={"learning_rate": hardware.learning_rate})
    facts = workload_facts(own, {"obs_shape": [32], "num_actions": 3}, {})
    return Profile(profile="balanced", **hardware.as_dict(), device="cpu", workload=facts,
                   learning_rate=settings.learning_rate_for(hardware),
                   lr_scaling=settings.lr_scaling, measured=measured)  # fmt: skip


# --- settings and space


def test_every_combination_has_every_rate_in_the_order_given() -> None:
    configs = config().space().configs()
    assert len(configs) == len(set(configs)) == 4 * 3
    assert [c.learning_rate for c in configs[:3]] == list(RATES)
    assert config().space().shapes() == config(learning_rate="1e-3").space().configs()
    assert str(configs[0]) == "8x16 mb2 ep2 lr0.001"


def test_one_rate_is_no_dimension() -> None:
    for one in ("1e-3", [1e-3], "1e-3,0.001"):
        single = config(learning_rate=one, baseline="16,16,2,2")
        assert single.learning_rate == 1e-3
        assert list(single.space().choices()) == [n for n in SETTINGS if n != "learning_rate"]
        assert single.as_data()["baseline"] == [16, 16, 2, 2]
        assert single.space().configs()[0].params() == single.space().configs()[0].as_dict()


def test_the_baseline_has_the_first_rate_or_its_own() -> None:
    assert config(baseline="16,16,2,2").baseline == HardwareConfig(16, 16, 2, 2, 1e-3)
    own = config(baseline="16,16,2,2,0.1")
    assert own.baseline == HardwareConfig(16, 16, 2, 2, 0.1)
    assert load_config(own.as_data(), {}) == own


def test_only_takes_configs_with_a_rate_or_with_every_one() -> None:
    space = config(only="8,16,2,2;16,32,2,2,3e-4").space()
    assert space.configs() == [
        *(HardwareConfig(8, 16, 2, 2, rate) for rate in RATES), HardwareConfig(16, 32, 2, 2, 3e-4)
    ]  # fmt: skip


def test_a_rate_is_scaled_from_its_own() -> None:
    scaled = config(lr_scaling="sqrt", baseline="8,16,2,2")
    # A minibatch of 256 against 64: √4.
    assert scaled.learning_rate_for(HardwareConfig(16, 32, 2, 2, 3e-3)) == pytest.approx(6e-3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learning_rate": "1e-3", "baseline": "16,16,2,2,3e-4"}, "--baseline may have a learning"),
        ({"only": "16,16,2,2,0.5"}, "--only must have learning rates of --learning-rate"),
        ({"trainer": "theirs:make"}, "--learning-rate must be left out with a trainer"),
    ],
)
def test_a_rate_that_has_no_place_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        require_sound(load_config(None, {**SETTINGS, **settings}))


@pytest.mark.parametrize(
    "rates", ["1e-3,x", "1e-3,0", "1e-3,-1", "1e-3,inf", ",", "nan,1e-3", "1.5,2"]
)
def test_a_list_of_other_than_small_positive_numbers_is_refused(rates: str) -> None:
    with pytest.raises(UsageError, match=r"^--learning-rate must be a number, or several between"):
        load_config(None, {"learning_rate": rates})


def test_a_resume_may_leave_out_the_rate_of_the_baseline_where_it_is_the_first() -> None:
    def place(key: str) -> str:
        return f"--{key}"

    given = {"baseline": "16,16,2,2"}
    refuse_other_settings(config(baseline="16,16,2,2,1e-3"), given, place)
    with pytest.raises(Refused, match=r"--baseline must stay 16x16 mb2 ep2 lr0\.1 in this study"):
        refuse_other_settings(config(baseline="16,16,2,2,0.1"), given, place)


def test_a_measurement_trains_with_the_rate_of_its_config() -> None:
    several = config()
    for rate in RATES:
        workload = several.workload_for(HardwareConfig(8, 16, 2, 2, rate))
        assert workload.hyperparams["learning_rate"] == rate


# --- the search


@pytest.mark.parametrize("name", ["tpe", "structured", "grid", "random"])
def test_each_rate_of_a_config_is_proposed_once(name: str) -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler(name, TWO, seed=0))

    def objective(trial: optuna.Trial) -> float:
        for dimension, choices in TWO.choices().items():
            trial.suggest_categorical(dimension, choices)
        return float(trial.params["learning_rate"])

    study.optimize(objective, n_trials=12)
    assert {config_of_params(t.params) for t in study.trials} == set(TWO.configs())
    assert untried(study, TWO) == []


def test_what_was_killed_while_it_was_suggested_is_whole_when_it_runs_again() -> None:
    study = optuna.create_study(direction="maximize", sampler=make_sampler("grid", TWO, seed=0))
    cut, choices = study.ask(), list(TWO.choices().items())
    cut.suggest_categorical(*choices[0])
    assert config_of_params(cut.params) is None
    queue_again(study, cut.number)
    study.tell(cut, state=TrialState.FAIL)
    again = study.ask()
    for dimension, values in choices:
        again.suggest_categorical(dimension, values)
    found = config_of_params(again.params)
    assert found in TWO.configs()
    assert found is not None
    assert found.learning_rate == cut.params["learning_rate"]


def test_the_model_tells_rates_apart_in_score_and_not_in_speed() -> None:
    best = dict(zip(RATES, (0.5, 0.2, 0.9), strict=True))
    configs = TWO.configs()
    known = [c for c in configs if c.shape != HardwareConfig(16, 32, 2, 2)]
    values = np.array([best[c.learning_rate or 0] + c.num_envs / 1000 for c in known])
    speeds = [1000.0 * c.num_envs for c in known]
    model = Surrogate(Scale.of(TWO), known, values, speeds)
    left = [c for c in configs if c not in known]
    mean, _ = model.predict(left)
    assert [left[i].learning_rate for i in np.argsort(-mean)] == [3e-3, 1e-3, 3e-4]
    assert model.speed is not None
    assert len({model.speed.sps(c) for c in left}) == 1


def test_a_profile_begins_at_the_nearest_rate() -> None:
    wanted = Profile(profile="p", num_envs=16, num_steps=32, num_minibatches=2, num_epochs=2,
                     learning_rate=2.5e-3)  # fmt: skip
    (start,) = warm_start.starts_in([wanted], TWO)
    assert start.config == HardwareConfig(16, 32, 2, 2, 3e-3)
    # The study would scale this config's rate by 8: what it calls 3e-4 is nearest to 2.5e-3.
    (scaled,) = warm_start.starts_in([wanted], TWO, lambda config: 8.0)
    assert scaled.config.learning_rate == 3e-4
    assert HardwareConfig(**warm_start.as_fact([start])[0]) == start.config


# --- records, reports, profiles


def test_records_of_two_rates_are_two_configs() -> None:
    records = [
        replace(record(number, final_score=score), num_envs=64, learning_rate=rate)
        for number, (rate, score) in enumerate(zip(RATES, (0.5, 0.6, 0.4), strict=True))
    ]
    assert [s.config.learning_rate for s in summarise(records)] == list(RATES)
    assert sorted(objectives(records).values(), key=str) == [0.4, 0.5, 0.6]


def test_a_rate_is_stored_to_the_last_bit(tmp_path: Path) -> None:
    odd = 0.1 + 0.2
    with Telemetry(sqlite_url(tmp_path / "study.db")) as telemetry:
        telemetry.save("s", replace(record(0), learning_rate=odd))
        assert [r.learning_rate for r in telemetry.records("s")] == [odd]


def test_the_map_has_a_row_for_each_rate_while_they_fit() -> None:
    rows = [replace(record(n), num_envs=8, num_steps=16, num_minibatches=2, num_epochs=2,
                    learning_rate=rate, final_score=0.5 + n / 10)
            for n, rate in enumerate(RATES)]  # fmt: skip
    drawn = heat_map(StudyReading("s", config(), {}, {}, {}, rows, None)).figure
    assert drawn is not None
    assert drawn["data"][0]["y"][:2] == ["16 · mb2 · ep2 · lr0.001", "16 · mb2 · ep2 · lr0.0003"]
    many = config(num_minibatches="1,2,4,8", num_epochs="1,2,3,4")  # 2 × 4 × 4 × 3 = 96 rows
    merged = heat_map(StudyReading("s", many, {}, {}, {}, rows, None))
    assert merged.figure is not None
    assert len(merged.figure["data"][0]["y"]) == 32
    assert 0.7 in itertools.chain(*merged.figure["data"][0]["z"])
    assert merged.caption.endswith("A cell shows the best of all learning rates.")


def test_profiles_of_one_study_compare_whatever_their_rates() -> None:
    settings, told = config(), {"study": "s", "learning_rates": list(RATES)}
    one, other = (
        profile(settings, HardwareConfig(16, 16, 2, 2, rate), **told) for rate in RATES[:2]
    )
    assert is_of(other, HardwareConfig(16, 16, 2, 2, 3e-4))
    assert not is_of(other, HardwareConfig(16, 16, 2, 2, 1e-3))
    sources = Source("a", Path("p/a.yaml"), one), Source("b", Path("p/b.yaml"), other)
    assert differences(*sources).workload == ()
    apart = replace(other, measured={"study": "s"})  # of a study of this one rate
    found = differences(sources[0], Source("b", Path("p/b.yaml"), apart))
    assert found.workload == ("ppo.learning_rate: 0.001 → 0.0003",)


@pytest.mark.parametrize("scaling", ["none", "sqrt"])
@pytest.mark.parametrize("baseline", [None, "16,32,2,2"])
def test_a_front_is_transferred_with_its_rates(scaling: str, baseline: str | None) -> None:
    settings = config(lr_scaling=scaling, baseline="8,16,2,2,3e-4")
    front = [HardwareConfig(16, 16, 2, 2, 1e-3), HardwareConfig(16, 32, 2, 2, 3e-4)]
    measured = {"front": [list(c.params().values()) for c in front],
                "baseline": [8, 16, 2, 2, 3e-4], "budget_env_steps": 1000}  # fmt: skip
    moved = transfer_config(profile(settings, front[0], **measured), {"baseline": baseline})
    again = moved.resolved("cpu")
    tried = again.space().configs()
    assert [c.shape for c in tried] == [c.shape for c in front]
    # Each config trains with the rate that it had, wherever it is scaled from.
    effective = [settings.learning_rate_for(c) for c in front]
    assert [again.learning_rate_for(c) for c in tried] == pytest.approx(effective)
    assert again.baseline is not None
    assert again.baseline.learning_rate == again.learning_rates[0]
    require_sound(again)


def test_a_front_of_one_rate_is_transferred_as_a_study_of_one() -> None:
    settings = config(baseline="8,16,2,2,3e-3")
    chosen = HardwareConfig(16, 16, 2, 2, 3e-3)
    measured = {"front": [[16, 16, 2, 2, 3e-3]], "baseline": [8, 16, 2, 2, 3e-3]}
    again = transfer_config(profile(settings, chosen, **measured), {})
    assert (again.learning_rate, again.only) == (3e-3, (chosen.shape,))
    assert again.baseline == HardwareConfig(8, 16, 2, 2)


def test_a_study_of_one_rate_is_transferred_to_no_baseline_with_its_own() -> None:
    single = config(learning_rate="1e-3", baseline="8,16,2,2")
    chosen = HardwareConfig(16, 16, 2, 2)
    with pytest.raises(UsageError, match="--baseline must be four numbers, as the study of"):
        transfer_config(profile(single, chosen), {"baseline": "8,16,2,2,3e-4"})


# --- a study


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_study_of_two_rates_measures_each_and_says_so(studies: Studies) -> None:
    flags = (*SPACE, *WORKLOAD, "--only", "16,16,2,2", "--baseline", "8,16,2,2")
    ended = studies.start("rates", *flags, "--learning-rate", "1e-3,1e-2", "--min-feasible", "2")
    assert ended.code == 0, ended.err
    tried = {config_of(r) for r in studies.records("rates") if r.trial > 0}
    assert tried == {HardwareConfig(16, 16, 2, 2, rate) for rate in (1e-3, 1e-2)}
    assert config_of(studies.record("rates", 0)) == HardwareConfig(8, 16, 2, 2, 1e-3)
    assert {row["learning_rate"] for row in studies.rows("rates")} == {"0.001", "0.01"}
    folder = studies.folder / "runs" / "rates" / "profiles"
    for path in folder.glob("*.yaml"):
        written = read(path)
        assert written.learning_rate in (1e-3, 1e-2)
        assert written.workload["ppo"]["learning_rate"] == written.learning_rate
        assert written.measured["learning_rates"] == [1e-3, 1e-2]
    status = json.loads(studies.run("status", "rates", "--json").out)
    assert status["baseline"]["config"]["learning_rate"] == 1e-3
    assert "lr0.01" in studies.run("report", "rates").out
    assert studies.resume("rates", *flags, "--learning-rate", "1e-3,1e-2").code == 0
    assert studies.resume("rates", "--learning-rate", "1e-2,1e-3").code == 4
