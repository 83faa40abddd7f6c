"""What a worker must have in common with the study that it joins."""

from typing import Any

import pytest

from tuner.config import StudyConfig
from tuner.errors import Refused
from tuner.fingerprint import fingerprint, refuse_other_code, source_hash

VERSIONS = {"tuner": "1", "jax": "0.10", "jaxlib": "0.10", "optax": "0.2", "python": "3.11"}
DATA = {"data": {"path": "/here.csv", "sha256": "ab"}}


def made(data: Any = DATA, **settings: Any) -> dict[str, str | None]:
    return fingerprint(StudyConfig(**settings).resolved("cpu"), VERSIONS, data)


def test_equal_settings_have_one_fingerprint_wherever_their_data_lie() -> None:
    moved = {"data": {"path": "/there.csv", "sha256": "ab"}}
    assert made() == made(moved, trials=7, seed=3)
    refuse_other_code(made(), made(moved), "s")
    refuse_other_code(None, made(), "s")  # of a version that had none


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("jax", "version of jax, which is 0.9, but got 0.10 here"),
        ("tuner", "version of tuner, which is 0.9"),
        ("source", r"source code of tuner and envs \(hash\), which is 0.9"),
        ("workload", r"workload \(hash\), which is 0.9"),
    ],
)
def test_the_field_that_differs_is_named(field: str, word: str) -> None:
    with pytest.raises(Refused, match=f"the study 's' must keep its {word}"):
        refuse_other_code({**made(), field: "0.9"}, made(), "s")


@pytest.mark.parametrize(
    "settings",
    [{"gamma": 0.5}, {"network": (8,)}, {"env_params": {"rho": 0.5}}, {"env": "gymnax:x"}],
)
def test_another_workload_has_another_fingerprint(settings: dict[str, Any]) -> None:
    assert made(**settings)["workload"] != made()["workload"]


def test_where_bars_lie_is_no_part_of_the_workload() -> None:
    bars = {"env": "trading-phase1", "phase": 1}
    here = fingerprint(StudyConfig(**bars, data="/here.csv").resolved("cpu"), VERSIONS, DATA)
    there = fingerprint(StudyConfig(**bars, data="/there.csv").resolved("cpu"), VERSIONS, DATA)
    assert here == there


def test_other_bars_are_another_workload() -> None:
    other = {"data": {"path": "/here.csv", "sha256": "cd"}}
    assert made(other)["workload"] != made()["workload"]


def test_the_source_is_hashed_whole() -> None:
    assert len(source_hash()) == 16
    assert source_hash() == source_hash()
