"""Quality judged on real training: a policy that learns, and three that do not."""

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.records import TrialRecord
from tests.tuner.studies import SPACE, Studies
from tests.tuner.trials import PATIENCE_S, TINY, request, workload
from tuner.bench import Bench, Order
from tuner.devices.detect import open_device
from tuner.interrupts import Interrupts
from tuner.isolation import Launcher
from tuner.measurement import Measurement
from tuner.protocol import RandomRequest
from tuner.quality import QualityReferences
from tuner.references import References, assess, judge
from tuner.score import COMPONENTS, Weights
from tuner.space import HardwareConfig

ENV_STEPS = 65_536
SEEDS = 5
LEARNING_RATES = {
    "learning": 1e-3,
    "random": 1e-9,  # every parameter moves a little, and nothing is learned
    "frozen": 0.0,
    "diverged": 1e30,
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("locks")))
        made = Bench(
            open_device(),
            Launcher(tmp_path_factory.mktemp("logs"), preload=None),
            Interrupts(),
            timeout_s=PATIENCE_S,
            say=lambda line: None,
        )
    with made:
        yield made


@pytest.fixture(scope="module")
def references(bench: Bench, cache_dir: Path) -> References:
    """What a study would measure of chance on this machine."""
    asked = RandomRequest(workload=workload(), seeds=(0, 1, 2), cache_dir=str(cache_dir))
    answer = bench.ask(asked).data
    quality = QualityReferences(
        random_return=statistics.fmean(answer["returns"]),
        random_se=statistics.stdev(answer["returns"]) / math.sqrt(3),
        best_return=answer["best_return"],
        max_entropy=math.log(answer["num_actions"]),
    )
    return References(
        quality=quality,
        quality_reason=None,
        components=COMPONENTS,
        weights=Weights(),
        sps=100_000.0,
        spread=None,
        epsilon=None,
        target_return=None,
        env_steps=ENV_STEPS,
    )


@pytest.fixture(scope="module")
def trained(bench: Bench, references: References, cache_dir: Path) -> dict[str, Measurement]:
    def measure(trial: int, learning_rate: float) -> Measurement:
        asked = replace(request(cache_dir, env_steps=ENV_STEPS), workload=workload(learning_rate))
        order = Order(config=HardwareConfig(**TINY), trial=trial, replicate=0, request=asked)
        return bench.measure(order, on_block=lambda block: None)

    return {
        name: measure(trial, learning_rate)
        for trial, (name, learning_rate) in enumerate(LEARNING_RATES.items())
    }


Diagnose = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def diagnose(trained: dict[str, Measurement], references: References) -> Diagnose:
    return lambda name: assess(trained[name], references.quality).get_diagnostics()


@pytest.fixture(scope="module")
def judged(trained: dict[str, Measurement], references: References) -> dict[str, TrialRecord]:
    return {name: judge(measurement, references) for name, measurement in trained.items()}


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_each_way_to_train_has_its_own_diagnosis(name: str, diagnose: Diagnose) -> None:
    assert diagnose(name)["diagnosis"] == name


def test_only_the_policy_that_learns_is_acceptable(judged: dict[str, TrialRecord]) -> None:
    acceptable = {name: record.quality_acceptable for name, record in judged.items()}
    assert acceptable == {"learning": True, "random": False, "frozen": False, "diverged": False}


def test_learning_scores_clearly_above_random_and_frozen_which_are_about_zero(
    judged: dict[str, TrialRecord],
) -> None:
    learning, random, frozen = (
        judged[name].quality_score for name in ("learning", "random", "frozen")
    )
    assert learning is not None
    assert random is not None
    assert frozen is not None
    assert max(random, frozen) < 0.03
    assert learning > 0.5


def test_a_diverged_policy_has_no_score(judged: dict[str, TrialRecord]) -> None:
    record = judged["diverged"]
    assert (record.status, record.quality_score, record.final_score) == ("diverged", None, None)


def test_the_return_of_the_policy_that_learns_rises(diagnose: Diagnose) -> None:
    trends = diagnose("learning")["trends"]
    assert trends["mean_return"] > 0
    assert trends["entropy"] < 0


def test_a_frozen_policy_was_trained_without_a_change(trained: dict[str, Measurement]) -> None:
    changed = {
        name: measurement.evaluation.params_changed
        for name, measurement in trained.items()
        if measurement.evaluation is not None
    }
    assert changed == {"learning": True, "random": True, "frozen": False}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_quality_of_studies_that_learn_and_that_cannot_does_not_overlap(
    tmp_path: Path, cache_dir: Path
) -> None:
    studies = Studies(tmp_path, cache_dir)
    common = (
        *SPACE, "--baseline", "16,16,2,2", "--network", "16", "--env-param", "obs_dim=8",
        "--env-steps", str(ENV_STEPS), "--trials", "4",
    )  # fmt: skip
    scores: dict[str, list[float]] = {"0": [], "1e-3": []}
    for learning_rate, found in scores.items():
        for seed in range(SEEDS):
            name = f"lr-{learning_rate}-{seed}"
            flags = ("--learning-rate", learning_rate, "--seed", str(seed))
            ended = studies.start(name, *common, *flags)
            # Where nothing learns, nothing may be exported.
            assert ended.code == (7 if learning_rate == "0" else 0), ended.err
            of_study = [r.quality_score for r in studies.records(name) if r.status == "success"]
            known = [score for score in of_study if score is not None]
            assert len(known) == len(of_study) >= 4
            shown = " ".join(f"{score:.3f}" for score in known)
            print(f"learning rate {learning_rate}, seed {seed}: {shown}")  # noqa: T201
            found += known
    assert max(scores["0"]) < min(scores["1e-3"])
