"""The rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.tuner.studies import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tuner", "envs", "storage")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
MAY_NAME_A_USER_FOLDER = {"tests/test_house.py"}


def tracked_files() -> Iterator[tuple[str, str]]:
    """Return the text files that git knows, or all of a source archive without git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("git does not know this folder")
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in MODULES if path.stem in FORBIDDEN_NAMES] == []


def test_no_interval_is_measured_by_a_clock_that_can_be_set() -> None:
    # Dates are shown and stored; nothing waits for them. They are subtracted in one place, where a
    # single look must tell whether a worker on another machine has been silent for minutes.
    may_name_the_date = {"finalists.py", "patient.py", "beats.py", "heartbeat.py", "overview.py"}
    of_the_wall = re.compile(r"\btime\.(time|time_ns|localtime|gmtime)\(|\b(now|utcnow|today)\(")
    found = {path.name for path in MODULES if of_the_wall.search(path.read_text(encoding="utf-8"))}
    assert found <= may_name_the_date


@pytest.mark.parametrize("package", ["envs", "storage"])
def test_importing_envs_or_storage_alone_imports_nothing(package: str) -> None:
    assert (ROOT / package / "__init__.py").read_text() == ""


def test_every_test_folder_is_a_package() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_file_names_a_package_registry() -> None:
    # Installing works with whatever registry a machine is set up for.
    registry = re.compile(r"https?://[^\s\"']*(pypi|pythonhosted|index-url|/simple/)|--index-url")
    found = [name for name, text in tracked_files() if name not in MAY_NAME_A_USER_FOLDER
             and registry.search(text)]  # fmt: skip
    assert found == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    home = re.compile(rf"(?<![\w.])(/home/[a-z]|/Users/[A-Za-z]|/root/|{re.escape(str(ROOT))}/)")
    found = [name for name, text in tracked_files() if name not in MAY_NAME_A_USER_FOLDER
             and home.search(text)]  # fmt: skip
    assert found == []


@pytest.mark.timeout(600)
def test_a_script_loads_the_profiles_of_a_finished_study_without_a_database(
    finished: Finished,
) -> None:
    folder = finished.studies.folder / "runs" / "done" / "profiles"
    code = (
        "import sys\n"
        "from tuner import load_profile\n"
        "for name in ('balanced', 'max_gpu', 'max_quality'):\n"
        "    p = load_profile(f'{sys.argv[1]}/{name}.yaml')\n"
        "    print(p.profile, p.num_envs, p.num_steps, p.num_minibatches, p.num_epochs)\n"
        "own = {'tuner', 'storage', 'yaml', '_yaml'}\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(*sorted(names - own - set(sys.stdlib_module_names)))\n"
    )
    # What yaml itself and a machine's own start-up hooks import is no fault of ours.
    without_us = "import sys, yaml; print(*{name.partition('.')[0] for name in sys.modules})"
    before, done = (
        subprocess.run(
            [sys.executable, "-c", script, str(folder)],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        ).stdout
        for script in (without_us, code)
    )
    *profiles, imported = done.splitlines()
    configs = {(r.num_envs, r.num_steps, r.num_minibatches, r.num_epochs)
               for r in finished.studies.records("done")}  # fmt: skip
    assert [line.split()[0] for line in profiles] == ["balanced", "max_gpu", "max_quality"]
    for line in profiles:
        assert tuple(int(number) for number in line.split()[1:]) in configs
    assert set(imported.split()) <= set(before.split())
