"""How other hardware is told from a study's own, and where its group is kept."""

from pathlib import Path
from typing import Any

import pytest

from storage.database import sqlite_url
from tuner.config import StudyConfig
from tuner.errors import Refused, UsageError
from tuner.hardware import APART, differing_fact, group_name, refuse_other_hardware
from tuner.lookup import require_name

GPU: dict[str, Any] = {"kind": "gpu", "platform": "gpu", "name": "NVIDIA H100 80GB HBM3",
                       "cores": 16.0, "memory_gb": 85.5}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "cpu"), ("platform", "rocm"), ("name", "x"), ("cores", 8.0), ("memory_gb", 40.0)],
)
def test_each_fact_that_matters_is_told_and_makes_another_group(field: str, value: Any) -> None:
    other = {**GPU, field: value}
    assert differing_fact(GPU, other) == field
    assert group_name(other) != group_name(GPU)
    with pytest.raises(Refused, match=f"whose {field} is "):
        refuse_other_hardware(GPU, other, "a study", remedy=APART)


def test_what_may_move_a_little_is_the_same_hardware() -> None:
    assert differing_fact(GPU, {**GPU, "memory_gb": 85.1, "uuid": "GPU-2"}) is None
    assert group_name({**GPU, "uuid": "GPU-2"}) == group_name(GPU)


def test_fewer_cores_can_be_had_by_pinning() -> None:
    with pytest.raises(Refused, match="taskset -c 0-3"):
        refuse_other_hardware({**GPU, "cores": 4.0}, GPU, "a study", remedy=APART)


def test_a_group_is_named_after_its_hardware_and_kept_within_its_study() -> None:
    group = group_name(GPU)
    assert group.startswith("NVIDIA-H100-80GB-HBM3-")
    require_name(f"demo@{group}", may_be_group=True)
    with pytest.raises(UsageError):
        require_name(f"demo@{group}")
    config = StudyConfig()
    assert config.folder(f"demo@{group}") == Path("runs/demo/groups") / group
    assert config.profiles_folder(f"demo@{group}") == Path("runs/demo/profiles") / group
    assert config.profiles_folder("demo") == Path("runs/demo/profiles")
    assert config.storage_url(f"demo@{group}") == sqlite_url(Path("runs/demo/study.db"))


@pytest.mark.parametrize("name", ["a@", "@b", "a@../b", "a@b@c", "a/b@c"])
def test_a_group_cannot_leave_its_folder(name: str) -> None:
    with pytest.raises(UsageError, match="NAME must be of letters"):
        require_name(name, may_be_group=True)
