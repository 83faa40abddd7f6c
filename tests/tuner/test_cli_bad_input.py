"""Bad input: one line on stderr with the remedy, nothing on stdout, and the right exit code."""

import os
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.tuner.studies import PATIENCE_S, TUNER, Ended, Studies
from tuner import cli

pytestmark = pytest.mark.timeout(600)

COMMANDS = ("start", "resume", "list", "status", "show", "report", "export", "dashboard", "doctor")
TAKES_NAME = ("resume", "status", "show", "report", "export", "dashboard")
WRONG = {
    "unknown command": (("strat",), "start"),
    "unknown flag": (("start", "--num-env", "8"), "--num-envs"),
    "unknown flag of resume": (("resume", "x", "--trails", "8"), "--trials"),
    "unknown flag of status": (("status", "x", "--jsn"), "--json"),
    "underscore in a flag": (("start", "--num_envs", "8"), "--num-envs"),
    "missing name": (("status",), "'NAME'; see `tuner status --help`"),
    "a word too many": (("start", "my", "study"), "(study); see `tuner start --help`"),
    "flag without value": (("start", "--trials"), "--trials"),
    "trial that is no number": (("show", "x", "one"), "TRIAL"),
    "unknown environment": (
        ("start", "--env", "gymnax:CartPole-v2"),
        "did you mean gymnax:CartPole-v1?",
    ),
    "environment without its prefix": (("start", "--env", "cartpole-v1"), "gymnax:CartPole-v1?"),
    "environment of brax without its prefix": (("start", "--env", "ant"), "brax:ant?"),
    "own environment with a dot": (("start", "--env", "my_env.make"), "my_env:make?"),
    "own environment by its file": (("start", "--env", "my_env.py:make"), "my_env:make?"),
    "own trainer with a dot": (("start", "--trainer", "my_ppo.make"), "package.module:factory"),
    "missing data file": (("start", "--phase", "1", "--data", "no.csv"), "give --data its place"),
    "data without trading": (("start", "--data", "no.csv"), "add --phase 1"),
    "unknown market": (("start", "--phase", "1", "--market", "NASDAQ"), "needs --point-value"),
    "empty list": (("start", "--num-envs", ","), "--num-envs must be a list of positive integers"),
    "empty text": (("start", "--num-steps", ""), "--num-steps"),
    "zero in a list": (("start", "--num-steps", "0,16"), "but got '0,16'"),
    "negative in a list": (
        (
            "start",
            "--num-epochs=-2",
        ),
        "but got '-2'",
    ),
    "text in a list": (("start", "--num-minibatches", "2,x"), "such as 512,1024"),
    "short baseline": (("start", "--baseline", "16,16,2"), "such as 2048,128,8,4"),
    "baseline of a zero": (("start", "--baseline", "16,16,0,2"), "four positive integers"),
    "baseline that never divides": (("start", "--baseline", "7,3,2,2"), "divides into 2"),
    "env param without value": (("start", "--env-param", "obs_dim"), "such as obs_dim=64"),
    "storage that is no address": (("start", "--storage", "nonsense"), "sqlite:///FILE"),
    "storage of another kind": (("start", "--storage", "mysql://h/d"), "postgresql+psycopg://"),
    "unknown sampler": (("start", "--sampler", "tpee"), "'tpe'"),
    "no trials": (("start", "--trials", "0"), "greater than or equal to 1"),
    "budget without unit": (("start", "--budget", "45"), "with a unit, such as 300s, 45m"),
    "budget that is no time": (("start", "--budget", "soon"), "45m"),
    "budget of nothing": (("start", "--budget", "0m"), "greater than 0"),
    "learning rate that is no number": (("start", "--learning-rate", "nan"), "finite number"),
    "memory limit": (("start", "--memory-limit", "2 apples"), "2GB"),
    "weights": (("start", "--weights", "0,0,0"), "0.4,0.4,0.2"),
    "port out of range": (("dashboard", "x", "--port", "70000"), "65535"),
    "slash in the name": (("start", "a/b"), "but got 'a/b'; try a-b"),
    "space in the name": (("start", "my study"), "try my-study"),
    "name of a parent": (("start", ".."), "not start with '.'"),
    "slash in the name to resume": (("resume", "../x"), "letters, digits"),
    "one profile to compare": (("compare", "nowhere"), "NAME/balanced"),
    "no profile to transfer": (("transfer", "nowhere.yaml"), "'nowhere.yaml'"),
    "config of a list": (("start", "--only", "8,16;8,16,2,2"), "such as 2048,128,8,4"),
    "profile that is not there": (
        ("start", "--warm-start", "nowhere.yaml"),
        "nowhere.yaml must be",
    ),
    "unknown goal": (("start", "--goal", "speed"), "'time-to-return'"),
    "regret of more than all": (("start", "--until-regret", "2"), "such as 10% or 0.1"),
    "goal without an end of its schedule": (
        ("start", "--goal", "time-to-return", "--lr-schedule", "linear"),
        "add --lr-anneal-env-steps",
    ),
    "missing file": (("start", "-c", "nowhere.yaml"), "nowhere.yaml: "),
    "missing profile": (("validate", "no.yaml"), "no.yaml must be a profile file"),
    "missing profile to train with": (
        ("train", "--profile", "no.yaml", "--total-steps", "9", "--checkpoint-dir", "t"),
        "see `tuner export`",
    ),
    "study that does not exist": (("status", "nope"), "see `tuner list`"),
    "folder that takes no files": (("start", "--runs-dir", "/proc"), "choose another"),
    "settings file that cannot be written": (("init", "-o", "/proc/study.yaml"), "--output"),
    "more workers than cores": (("start", "--workers", "999"), "or fewer"),
    "unknown target": (("plan", "--target", "H1000"), "`tuner targets`"),
}


def run_here(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Ended:
    """Run a command within this process: for those that end before they start another."""
    code = cli._run(list(arguments))
    out, err = capsys.readouterr()
    return Ended(code, out, err)


def refused(ended: Ended, code: int, *words: str) -> None:
    """Check that a command ended with one line for the user and nothing else."""
    assert ended.code == code, ended.err
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert lines[-1].startswith("tuner: ")
    assert [line for line in lines if "Traceback" in line or line.startswith(" ")] == []
    assert len([line for line in lines if line.startswith("tuner: ")]) == 1
    for word in words:
        assert word in lines[-1]


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_one_line_that_ends_with_exit_code_2(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, remedy = WRONG[case]
    ended = run_here(arguments, capsys)
    refused(ended, 2, remedy)
    assert len(ended.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_brax_without_its_extra_is_refused_with_what_to_install(
    studies: Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = studies.folder / "hidden"
    hidden.mkdir()
    (hidden / "brax.py").write_text("raise ModuleNotFoundError('none', name='brax')\n")
    monkeypatch.setenv("PYTHONPATH", f"{hidden}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    refused(studies.start("x", "--env", "brax:fast"), 2, "needs brax", "pip install -e '.[brax]'")
    assert not studies.folder.joinpath("runs", "x", "config.yaml").exists()  # the name is free


@pytest.mark.parametrize("command", TAKES_NAME)
def test_a_name_that_does_not_exist_is_refused_with_the_way_to_find_one(
    command: str, studies: Studies
) -> None:
    refused(studies.run(command, "nope"), 2, "nope", "tuner list")
    assert not (studies.folder / "runs").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_needs_no_study_and_no_writable_folder(command: str) -> None:
    done = subprocess.run(
        [TUNER, command, "--help"], cwd="/proc", capture_output=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_env: [8]\n", ("'num_env'", "did you mean num_envs?")),
        ("colour: red\n", ("'colour'", "tuner start --help")),
        ("num_envs: [8, 16\n", ("must be YAML", "study.yaml")),
        ("num_envs: &a [8]\nnum_steps: *a\n", ("study.yaml", "in line 2: an alias")),
        ("trials: 4\nseed: 1\ntrials: 5\n", ("study.yaml", "in line 3: a second 'trials'")),
        ("seed: !!python/name:os.system\n", ("study.yaml", "in line 1: the tag")),
        ("seed: 0x" + "f" * 5000 + "\n", ("study.yaml", "a number of more than 64 characters")),
        ("seed: 1\n" + "#" * 1_000_000, ("study.yaml", "at most 1 MB")),
        ("storage: [postgresql://me:s3cret@h/d]\n", ("study.yaml: storage", "but got a list")),
        ("env: my_env:make\n", ("study.yaml", "alone may not run it", "add --env my_env:make")),
        ("trainer: my_ppo:make\n", ("study.yaml", "add --trainer my_ppo:make")),
        ('env: "\\e[2J"\n', ("--env", "\\x1b[2J")),
        ("storage: postgresql://me:a@b@h/d\n", ("--storage", "write those of a password")),
        ("- trials\n- 4\n", ("keys and values", "but got a list")),
        ("just words\n", ("keys and values", "but got a str")),
        ("num_envs: []\n", ("study.yaml: num_envs", "positive integers", "but got []")),
        ("num_envs: [8, -1]\n", ("study.yaml: num_envs", "but got [8, -1]")),
        ("num_envs: [8.5]\n", ("study.yaml: num_envs", "but got [8.5]")),
        ("trials: many\n", ("study.yaml: trials", "be an integer", "but got 'many'")),
        ("baseline: {num_envs: 8}\n", ("study.yaml: baseline", "four positive integers")),
        ("\x00\n", ("study.yaml",)),
    ],
)
def test_a_wrong_settings_file_is_refused_by_key_and_file(
    text: str, words: tuple[str, ...], studies: Studies
) -> None:
    (studies.folder / "study.yaml").write_text(text)
    ended = studies.run("start", "-c", "study.yaml")
    refused(ended, 2, *words)
    assert len(ended.err.splitlines()) == 1


def test_a_file_that_is_no_file_is_refused_at_once(studies: Studies) -> None:
    os.mkfifo(studies.folder / "pipe")
    (studies.folder / "endless").symlink_to("/dev/zero")
    for arguments in (("start", "-c"), ("validate",), ("start", "--phase", "1", "--data")):
        refused(studies.run(*arguments, "pipe"), 2, "regular file", "pipe")
    refused(studies.run("start", "-c", "endless"), 2, "endless must be a regular file")


def test_a_settings_file_that_is_not_text_is_refused(studies: Studies) -> None:
    (studies.folder / "study.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    refused(studies.run("start", "-c", "study.yaml"), 2, "study.yaml")


def test_a_batch_that_never_divides_is_refused_before_a_study_is_made(studies: Studies) -> None:
    flags = ("--num-envs", "7", "--num-steps", "5", "--num-minibatches", "2,4")
    ended = studies.start("x", *flags, "--baseline", "16,16,2,2")
    refused(ended, 2, "divides into its minibatches", "--num-minibatches")
    assert not studies.folder.joinpath("runs", "x", "study.db").exists()


@pytest.mark.long
def test_an_unknown_env_param_is_refused_and_the_name_stays_free(studies: Studies) -> None:
    ended = studies.start("x", "--env-param", "obs_dimm=8")
    refused(ended, 2, "'obs_dimm'", "did you mean obs_dim?")
    assert studies.run("list").out.startswith("no studies here")
    # With the name still taken this would end with exit code 4.
    refused(studies.start("x", "--env-param", "obs_dim=none"), 2, "obs_dim", "a whole number")


@pytest.mark.skipif(
    bool(__import__("importlib.util").util.find_spec("torch")), reason="torch is installed"
)
def test_the_gp_sampler_without_torch_is_refused_with_what_to_install(studies: Studies) -> None:
    refused(studies.start("x", "--sampler", "gp"), 2, "pip install -e '.[gp]'", "--sampler tpe")
    assert not studies.folder.joinpath("runs", "x", "study.db").exists()


def test_a_name_that_exists_is_refused_with_exit_code_4(copied: Studies) -> None:
    before = copied.records("done")
    refused(copied.start("done"), 4, "tuner resume done", "another name")
    assert copied.records("done") == before


def test_a_trial_that_does_not_exist_is_refused_with_those_that_do(finished: Finished) -> None:
    refused(finished.studies.run("show", "done", "77"), 2, "0 to 4", "but got 77")
    refused(finished.studies.run("show", "done", "77", "--json"), 2, "but got 77")
    refused(finished.studies.run("show", "done", "--", "-1"), 2, "but got -1")


def test_a_runs_folder_that_is_a_file_is_refused(studies: Studies) -> None:
    (studies.folder / "runs").write_text("not a folder")
    refused(studies.run("start", "x"), 2, "--runs-dir must be a folder that can be written")
    refused(studies.run("status", "x"), 2)
    assert studies.run("list").code == 0


def test_a_runs_folder_on_a_file_system_that_takes_no_files_is_refused(studies: Studies) -> None:
    refused(studies.run("start", "x", "--runs-dir", "/proc"), 2, "--runs-dir", "/proc")


def test_a_profile_folder_that_is_a_file_is_refused(copied: Studies) -> None:
    (copied.folder / "taken").write_text("")
    refused(copied.run("export", "done", "-o", "taken"), 2, "--output", "taken")


@pytest.mark.parametrize("command", [*TAKES_NAME, "start"])
def test_a_study_file_that_is_no_database_is_refused_with_exit_code_2(
    command: str, copied: Studies
) -> None:
    (copied.folder / "runs" / "done" / "study.db").write_text("these are not the bytes\n" * 99)
    refused(copied.run(command, "done"), 2, "study.db", "SQLite database")


@pytest.mark.parametrize("command", ["resume", "status", "report", "export", "dashboard", "show"])
def test_a_study_of_a_newer_schema_is_refused_with_exit_code_4(
    command: str, copied: Studies
) -> None:
    database = copied.folder / "runs" / "done" / "study.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE tuner_meta SET value = '999' WHERE key = 'schema_version'")
    connection.close()
    before = database.read_bytes()
    arguments = ("done", "1") if command == "show" else ("done",)
    flags = ("--trials", "6") if command == "resume" else ()
    refused(copied.run(command, *arguments, *flags), 4, "999", "newer")
    assert database.read_bytes() == before


def test_a_port_that_is_taken_is_refused(finished: Finished) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused(finished.studies.run("dashboard", "done", "--port", port), 2, port, "try another")


@pytest.mark.parametrize("change", ["missing", "empty"])
def test_a_study_is_read_and_resumed_without_its_config_file(change: str, copied: Studies) -> None:
    written = copied.folder / "runs" / "done" / "config.yaml"
    if change == "missing":
        written.unlink()
    else:
        written.write_text("")
    for command in ("resume", "status", "report"):
        ended = copied.run(command, "done")
        assert ended.code == 0, ended.err
        assert "done on" in ended.out


def test_a_broken_config_file_is_refused_by_name(copied: Studies) -> None:
    (copied.folder / "runs" / "done" / "config.yaml").write_text("trials: [")
    refused(copied.run("resume", "done"), 2, "config.yaml", "YAML")


def test_one_unreadable_study_does_not_hide_the_others(copied: Studies) -> None:
    runs = copied.folder / "runs"
    shutil.copytree(runs / "done", runs / "other")
    (runs / "other" / "study.db").write_text("spoilt")
    ended = copied.run("list")
    assert ended.code == 0
    assert "done" in ended.out
    assert "unreadable" in ended.out
