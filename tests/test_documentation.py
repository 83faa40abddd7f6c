"""The documentation's commands: every one is read as the command line reads it, and run for real.

Reading takes milliseconds and is in the suite; running takes a study for most lines and is `long`.
"""

import re
import shutil
import signal
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.documents import HELP, PAGES, ROOT, Shown, anchors, links, prose, shown, spans
from tests.tuner.studies import Ended, Studies, kill_tree, wait_for_line
from tuner import cli
from tuner.config import DATA_FILES, StudyConfig
from tuner.settings import load_config
from tuner.training_settings import training_settings
from tuner.workload import require_sound

QUICK = ("--num-envs", "8,16", "--num-steps", "16,32", "--num-minibatches", "2,4",
         "--num-epochs", "2", "--baseline", "32,16,2,2", "--env-steps", "16384", "--budget", "4m",
         "--min-feasible", "1", "--repeat-disturbed", "false", "--probe", "false")  # fmt: skip
ADDED = {
    "start": (*QUICK, "--trials", "2"),
    "resume": ("--trials", "3", "--budget", "4m"),
    "plan": QUICK,
    "worker": ("--budget", "1m", "--wait", "30s"),
    "train": ("--total-steps", "20000"),
    "transfer": (
        "--env-steps",
        "16384",
        "--budget",
        "4m",
        "--min-feasible",
        "1",
        "--repeat-disturbed",
        "false",
        "--probe",
        "false",
    ),
    "dashboard": ("--port", "0"),
}
"""Flags that make a command quick, after those of the page: the last of two wins."""
CODES = {"start": {0, 7}, "resume": {0, 7}, "validate": {0, 6, 9}}
"""Exit codes beside 0 that are answers too: tiny trainings may teach nothing."""
MADE_BY_MAKE = "demo"
"""The study that `make study` has left, which examples read."""
INSTEAD = {
    "make study": ("start", MADE_BY_MAKE),
    "tuner show demo 7": ("show", "demo", "1"),
}
"""What is run in place of a line: the same on what this test has."""
PYTHON, CARTPOLE = ".venv/bin/python examples", "runs/cartpole/profiles/balanced.yaml"
ELSEWHERE = {
    "tuner start demo --devices 0,1": "needs two GPUs",
    "tuner plan --target 'H100 SXM 80GB'": "needs `make targets`; tests/tuner/targets runs it",
    "tuner plan --target 'H100 SXM 80GB' --target 'RTX 4090'": "as the line before",
    "tuner worker demo --storage grpc://localhost:13000": "needs a proxy; tests/storage/test_proxy",
    "tuner worker demo --storage postgresql+psycopg://tuner@host/db":
        "needs another machine; tests/tuner/test_workers_elsewhere.py runs it",
    f"{PYTHON}/train_rejax.py {CARTPOLE} 500000": "tests/test_examples.py runs it",
    f"{PYTHON}/train_purejaxrl.py {CARTPOLE} 500000": "tests/test_examples.py runs it",
    f"{PYTHON}/train_brax.py runs/ant/profiles/balanced.yaml 50000000 ant": "as the line before",
    "tuner start ant --env brax:ant --normalize-obs true --budget 2h": "takes minutes to compile",
}  # fmt: skip
"""Lines that this machine cannot run, or that another test runs, with the reason."""
SEARCHING = {"start", "resume", "worker", "plan"}
SHELL_WORDS = {"if", "then", "else", "fi", "export", "code=$?"}
BY_PAGE = [*PAGES, HELP]
PICTURE_BYTES = 300_000


def tuners(page: str) -> list[Shown]:
    return [command for command in shown(page) if command.words[0] == "tuner"]


@cache
def commands() -> dict[str, Any]:
    """Return the commands by name, with all their flags."""
    cli._with_flags([*SEARCHING, "train", "transfer"])
    found: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    return found


def flags_of(name: str) -> set[str]:
    """Return the flags of a command."""
    return {flag for option in commands()[name].params for flag in option.opts} | {"--help"}


def parsed(words: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Return a command's name and its options by name, as the command line reads its words."""
    name, *arguments = cli._with_flags(list(words[1:]))
    options: dict[str, Any] = commands()[name].make_context(name, arguments).params
    return name, options


@pytest.mark.parametrize("page", BY_PAGE)
def test_every_documented_command_is_read_as_it_stands(page: str) -> None:
    for command in tuners(page):
        name, options = parsed(command.words)
        if name == "train":
            training_settings(options)
        elif name in SEARCHING:
            settings = {k: v for k, v in options.items() if k in StudyConfig.model_fields}
            require_sound(load_config(None, settings))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_within_a_sentence_has_flags_that_exist(page: str) -> None:
    for span in spans(page):
        name, *words = span.split()[1:]
        assert name in commands(), span
        assert {word for word in words if word.startswith("-")} <= flags_of(name), span


@pytest.mark.parametrize("page", BY_PAGE)
def test_every_file_that_a_documented_command_reads_is_explained(page: str) -> None:
    started = {MADE_BY_MAKE}
    for command in shown(page):
        if command.words[:2] == ("tuner", "start"):
            started.add(parsed(command.words)[1]["name"])
        for word in command.words:
            profile = re.fullmatch(r"runs/([\w-]+)/profiles/\w+\.yaml", word)
            if profile is not None:
                assert profile[1] in started, f"no command before {command} makes that study"
    for command in tuners(page):
        options = parsed(command.words)[1]
        for name in (*DATA_FILES, "config"):
            if isinstance(file := options.get(name), str | Path):
                assert f"`{file}`" in prose(page), f"{page} does not say what {file} is"


def test_no_line_is_left_out_that_is_not_documented() -> None:
    lines = {str(command) for page in BY_PAGE for command in shown(page)}
    assert {*ELSEWHERE, *INSTEAD} <= lines


def test_every_setting_that_a_page_names_exists() -> None:
    flags = set().union(*map(flags_of, commands()))
    for page in PAGES:
        named = set(re.findall(r"`(--[a-z][a-z-]+)", prose(page)))
        assert named <= flags, page


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", prose(page)))
        named |= {command.words[1] for command in shown(page) if command.words[0] == "make"}
        assert named <= targets, page


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_documentation_leads_somewhere(page: str) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), link
        assert not anchor or anchor in anchors(str(file.resolve().relative_to(ROOT))), link


def test_every_picture_is_shown_and_small_and_loads_nothing() -> None:
    pictures = {file.resolve() for file in (ROOT / "docs" / "pictures").iterdir()}
    assert pictures <= {(ROOT / p).parent.joinpath(x).resolve() for p in PAGES for x in links(p)}
    for file in pictures:
        content = file.read_bytes()
        assert len(content) < PICTURE_BYTES
        assert not re.search(rb"url\((?!#)|href=", content) or file.suffix != ".svg"


@pytest.fixture
def place(tmp_path: Path, cache_dir: Path) -> Studies:
    """A folder with what the pages take for granted: the examples, and bars."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for path in (ROOT / "examples").glob("my_*.py"):
        shutil.copy(path, tmp_path)
    shutil.copy(ROOT / "tests" / "data" / "nasdaq-daily.csv", tmp_path / "bars.csv")
    return Studies(tmp_path, cache_dir)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", BY_PAGE)
def test_every_documented_command_runs(page: str, place: Studies) -> None:
    if page in (HELP, "docs/profiles.md"):  # they read the study that the README begins with
        run(place, INSTEAD["make study"])
        made = place.folder / "runs" / MADE_BY_MAKE / "profiles"
        shutil.copytree(made, place.folder / "elsewhere")  # as if from another machine
    for command in shown(page):
        line = str(command)
        if line in ELSEWHERE:
            sys.stderr.write(f"\nnot run: {line}: {ELSEWHERE[line]}")
        elif command.words[0] == "cp":
            shutil.copy(place.folder / command.words[1], place.folder)
        elif command.words[0] not in SHELL_WORDS:
            assert command.words[0] == "tuner" or line in INSTEAD, line
            run(place, INSTEAD.get(line, command.words[1:]))


def run(place: Studies, arguments: tuple[str, ...]) -> None:
    """Run a command with quick flags and check that it ends well."""
    command = arguments[0]
    added = ADDED.get(command, ())
    if command == "start":  # a page may start the same study in several ways
        options = parsed(("tuner", *arguments))[1]
        shutil.rmtree(place.folder / "runs" / options["name"], ignore_errors=True)
        added = (*added, "--cache-dir", str(place._cache_dir))
    is_server = command == "dashboard"
    ended = (partial(serve, place) if is_server else place.run)(*arguments, *added)
    codes = CODES.get(command, {0})
    assert ended.code in codes, f"tuner {' '.join(arguments)}: {ended.err}"
    assert "Traceback" not in ended.err


def serve(place: Studies, *arguments: str) -> Ended:
    """Run a command that serves until Ctrl-C, and press that once it does."""
    with place.begin(*arguments) as process:
        try:
            told = wait_for_line(process, "http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        except BaseException:
            kill_tree(process.pid)
            raise
    assert told is not None, err
    return Ended(process.returncode, out, err)
