"""Profiles: what is written is read, what is wrong is refused in one line, history is kept."""

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import InvalidProfile, StorageUnavailable
from storage.profile import MODE, from_mapping
from storage.profile_files import Profile, load_profile, read, write

PROFILE = Profile(
    profile="balanced",
    num_envs=4096,
    num_steps=256,
    num_minibatches=8,
    num_epochs=4,
    expected_sps=1_250_000.0,
    expected_sps_ci95=(1_240_000.0, 1_260_000.0),
    learning_rate=3e-05,
    workload={"env": "stress", "network": [256, 256], "hash": "12345e67"},
    measured={"date": "2026-11-22T05:00:00Z"},
)
MINIMAL = """\
schema_version: 1
profile: balanced
num_envs: 4096
num_steps: 256
num_minibatches: 8
num_epochs: 4
"""

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,11}", fullmatch=True)
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(1, 10**9)
# Everything but surrogates, which no UTF-8 file can hold.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
by_type: dict[Any, st.SearchStrategy[Any]] = {
    "int": counts,
    "int | None": st.none() | counts,
    "str | None": st.none() | texts,
    "float | None": numbers,
    "bool | None": st.none() | st.booleans(),
    "tuple[float, float] | None": st.none()
    | st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
    "tuple[str, ...]": st.lists(names, max_size=3).map(tuple),
    "Mapping": st.dictionaries(texts, plain, max_size=4),
}


def _strategy(name: str, hint: Any) -> st.SearchStrategy[Any]:
    fixed = {"schema_version": st.just(1), "profile": names, "mode": st.just(MODE)}
    shown = hint.__name__ if isinstance(hint, type) else str(hint)
    key = "Mapping" if "Mapping" in shown else shown
    return fixed[name] if name in fixed else by_type[key]


profiles = st.builds(Profile, **{f.name: _strategy(f.name, f.type) for f in fields(Profile)})


@settings(deadline=None, max_examples=60)
@given(profile=profiles)
def test_what_is_written_is_read_back_equal(
    profile: Profile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("profiles"), profile)
    assert path.name == f"{profile.profile}.yaml"
    assert read(path) == profile
    assert from_mapping(profile.as_dict(), source="test") == profile


def test_keys_are_the_fields_in_order_and_phase_only_for_trading(tmp_path: Path) -> None:
    text = write(tmp_path, PROFILE).read_text()
    keys = [line.split(":")[0] for line in text.splitlines() if line[0].isalpha()]
    assert keys == [f.name for f in fields(Profile) if f.name != "phase"]
    assert read(write(tmp_path, replace(PROFILE, phase=2))).phase == 2


def test_any_yaml_reader_reads_the_same(tmp_path: Path) -> None:
    data = yaml.safe_load(write(tmp_path, PROFILE).read_text())
    assert data == PROFILE.as_dict()


def test_a_few_hand_written_lines_will_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL + "learning_rate: 3e-4\nmeasured: {date: 2026-11-22T05:00:00Z}\n")
    profile = load_profile(path)
    assert (profile.num_envs, profile.num_epochs, profile.num_devices) == (4096, 4, 1)
    assert profile.learning_rate == 3e-4
    assert profile.measured == {"date": "2026-11-22T05:00:00Z"}
    assert profile.expected_sps is None
    assert load_profile(str(path)) == profile


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL.replace("num_envs", "num_env"), "but got 'num_env'; did you mean num_envs?"),
        (MINIMAL + "total_timesteps: 1e6\n", "known keys only, but got 'total_timesteps'"),
        (MINIMAL.replace("version: 1", "version: 2"), "schema_version 1 or older, but got 2; ins"),
        (MINIMAL.replace("version: 1", "version: x"), "schema_version must be a positive integer"),
        (MINIMAL.replace("num_envs: 4096\n", ""), "must have num_envs, but it is missing; add"),
        (MINIMAL.replace("4096", ""), "must have num_envs, but it is missing"),
        (MINIMAL.replace("4096", "0"), "num_envs must be a positive integer, but got 0"),
        (MINIMAL.replace("4096", "4096.0"), "num_envs must be a positive integer, but got 4096.0"),
        (MINIMAL.replace("4096", "true"), "num_envs must be a positive integer, but got True"),
        (MINIMAL.replace("4096", "'4096'"), "num_envs must be a positive integer, but got '4096'"),
        (MINIMAL.replace("balanced", "../x"), "profile must be a name of letters"),
        (MINIMAL + "mode: other\n", "mode must be jax_hardware_maximized"),
        (MINIMAL + "expected_sps: .nan\n", "expected_sps must be a finite number, but got nan"),
        (MINIMAL + "expected_sps: fast\n", "expected_sps must be a finite number, but got 'fast'"),
        (MINIMAL + "expected_sps_ci95: [1]\n", "expected_sps_ci95 must be a list of two numbers"),
        (MINIMAL + "expected_sps_ci95: [1, x]\n", "must be a finite number"),
        (MINIMAL + "constraint_met: 1\n", "constraint_met must be true or false, but got 1"),
        (MINIMAL + "coincides_with: max_gpu\n", "coincides_with must be a list of profile names"),
        (MINIMAL + "hardware: H100\n", "hardware must be keys and values, but got 'H100'"),
        (MINIMAL + "reason: 3\n", "reason must be text, but got 3"),
        (MINIMAL + "num_steps: 9\n", "in line 7: a second 'num_steps'"),
        (MINIMAL + "notes: [a\n", "must be YAML, but got in line 8"),
        (MINIMAL + "notes: !!python/name:os.system\n", "must be YAML, but got in line 7"),
        (MINIMAL + "hardware: &a {x: 1}\nversions: *a\n", "in line 8: an alias"),
        (MINIMAL + "---\na: 1\n", "must be YAML, but got in line 7"),
        (MINIMAL + "? [a, b]\n: 1\n", "must be YAML, but got in line 7"),
        ("- 1\n", "must hold keys and values, but got [1]"),
        ("", "must hold keys and values, but got None"),
        ("\x00", "must be a YAML text"),
        (MINIMAL + "notes: " + "[" * 20_000, "in line 7: too deep nesting"),
        (MINIMAL + "#" * 1_000_000, "must be at most 1 MB"),
    ],
)
def test_what_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InvalidProfile) as caught:
        read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_text_or_no_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xfa")
    for path in (tmp_path / "binary.yaml", tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(InvalidProfile, match="must be"):
            read(path)


def test_a_profile_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    for wrong in (
        replace(PROFILE, num_envs=0),
        replace(PROFILE, expected_sps=float("inf")),
        replace(PROFILE, profile="../balanced"),
        replace(PROFILE, hardware={"path": tmp_path}),
    ):
        with pytest.raises(InvalidProfile, match="the profile"):
            write(tmp_path, wrong)
    assert list(tmp_path.iterdir()) == []


def test_earlier_versions_are_kept_and_an_identical_one_is_not(tmp_path: Path) -> None:
    scores = [0.1, 0.2, 0.3, 0.4]
    for score in scores:
        path = write(tmp_path, replace(PROFILE, final_score=score))
        write(tmp_path, replace(PROFILE, final_score=score))
    kept = sorted((tmp_path / "history").iterdir())
    assert sorted(read(old).final_score or 0.0 for old in kept) == scores[:3]
    assert read(path).final_score == 0.4
    assert {file.name for file in tmp_path.iterdir()} == {"balanced.yaml", "history"}


def test_versions_of_one_moment_are_both_kept_under_their_time(tmp_path: Path) -> None:
    moment = 1_795_323_600.25  # 2026-11-22 05:00:00.25 UTC
    for score in (0.1, 0.2, 0.3):
        path = write(tmp_path, replace(PROFILE, final_score=score))
        os.utime(path, (moment, moment))
    assert sorted(file.name for file in (tmp_path / "history").iterdir()) == [
        "balanced-20261122T050000.250000Z-2.yaml",
        "balanced-20261122T050000.250000Z.yaml",
    ]


def test_a_broken_file_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "balanced.yaml").write_bytes(b"\xff not a profile")
    write(tmp_path, PROFILE)
    (kept,) = (tmp_path / "history").iterdir()
    assert kept.read_bytes() == b"\xff not a profile"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match=r"balanced\.yaml must be writable"):
        write(tmp_path / "file", PROFILE)


def _modules_after(statement: str) -> set[str]:
    script = f"{statement}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return set(shown.stdout.decode().split())


def test_only_yaml_and_the_standard_library_are_imported() -> None:
    added = _modules_after("import storage.profile_files") - _modules_after("import yaml")
    assert added - set(sys.stdlib_module_names) == {"storage"}
