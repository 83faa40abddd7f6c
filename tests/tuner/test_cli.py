"""The commands on a real finished study: documents, tables, streams, help."""

import json
import os
import re
import statistics
import subprocess
import sys
from typing import Any

import pytest
import yaml

from storage.records import RECORD_FIELDS
from tests.conftest import Finished
from tests.tuner.studies import PATIENCE_S, TUNER, Studies
from tuner import load_profile
from tuner.cli import app

pytestmark = pytest.mark.timeout(600)

COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)
CONFIG = {"num_envs", "num_steps", "num_minibatches", "num_epochs"}
STATES = ["complete", "pruned", "fail", "running", "waiting"]
RECORD_OF_CONTRACT = """
    trial replicate num_envs num_steps num_minibatches num_epochs status reason device_util
    util_source gpu_util sm_util dram_util peak_memory_gb predicted_memory_gb memory_limit_gb
    memory_source avg_temperature power_w energy_j mean_return entropy policy_loss value_loss
    approx_kl explained_variance sps sps_ci95 end_to_end_sps compile_s duration env_steps
    seconds_to_target gpu_score quality_score sps_score final_score quality_acceptable
    contaminated
"""
CONTRACT_FIELDS = RECORD_OF_CONTRACT.split()
READERS = {
    "list": ("list",),
    "status": ("status", "done"),
    "show": ("show", "done"),
    "show a trial": ("show", "done", "1"),
    "report": ("report", "done"),
    "compare": ("compare", "done"),
    "doctor": ("doctor",),
}


def document(studies: Studies, *arguments: str) -> Any:
    """Return the one JSON document that a command prints on stdout."""
    ended = studies.run(*arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def help_of(*command: str) -> str:
    done = subprocess.run(
        [TUNER, *command, "--help"], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stderr == ""
    return done.stdout


def table_row(text: str, first: str) -> list[str]:
    """Return the cells of the row that begins with `first`; columns are two spaces apart."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    return next(row for row in rows if row[0] == first)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_the_command_and_ends_with_an_example(command: str) -> None:
    text = help_of(command)
    assert text.startswith(f"Usage: tuner {command}")
    description = text.split("\n\n")[1].strip()
    assert description.endswith(".")
    assert len(description) > 15
    example = " ".join(text.split("\n\n")[-1].split())
    assert example.startswith(f"Example: tuner {command}")


def test_help_names_every_command_of_a_real_study() -> None:
    text = help_of()
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", text, re.MULTILINE)
    assert set(COMMANDS) == {
        "start", "plan", "targets", "resume", "worker", "list", "status", "show", "report",
        "export", "validate", "dashboard", "doctor", "train", "compare", "transfer", "init",
    }  # fmt: skip


def test_tuner_without_arguments_prints_its_help() -> None:
    done = subprocess.run([TUNER], capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert done.stdout == help_of()


def cpu_seconds_of_help() -> float:
    process = subprocess.Popen([TUNER, "--help"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_help_takes_less_than_half_a_second_of_cpu() -> None:
    # Neighbours on the same core add to CPU time and nothing takes from it: the least counts.
    assert min(cpu_seconds_of_help() for _ in range(9)) < 0.5


def test_help_imports_no_heavy_library() -> None:
    code = (
        "import sys, tuner.cli\n"
        "code = tuner.cli._run(['--help'])\n"
        "print('|', code, *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    code_and_modules = done.stdout.rpartition("|")[2].split()
    assert code_and_modules[0] == "0"
    heavy = {
        "jax",
        "jaxlib",
        "numpy",
        "scipy",
        "optuna",
        "pandas",
        "sqlalchemy",
        "torch",
        "flax",
        "pydantic",
    }
    assert not heavy & set(code_and_modules)


def test_start_prints_its_report_on_stdout_and_its_progress_on_stderr(finished: Finished) -> None:
    ended = finished.ended
    assert "best is" in ended.out
    assert "best is" not in ended.err
    for words in ("calibrating", "baseline 32x16 mb2 ep2", "trial 1:", "search ended"):
        assert words in ended.err
    assert "calibrating" not in ended.out
    assert ended.out.strip() == finished.studies.run("report", "done").out.strip()


def test_status_prints_the_documented_keys_and_counts(finished: Finished) -> None:
    found = document(finished.studies, "status", "done")
    assert set(found) >= {
        "study", "storage", "trials", "statuses", "best", "baseline", "front", "elapsed_s",
        "device",
    }  # fmt: skip
    assert list(found["trials"]) == STATES
    assert set(found["best"]) == {"trial", "final_score", "config", "sps"}
    assert set(found["baseline"]) == {"trial", "config", "sps", "mean_return"}
    assert set(found["device"]) == {"kind", "name", "memory_gb", "uuid"}
    assert set(found["best"]["config"]) == set(found["baseline"]["config"]) == CONFIG
    # The baseline and the four configs of the space.
    assert found["trials"] == {"complete": 5, "pruned": 0, "fail": 0, "running": 0, "waiting": 0}
    assert found["statuses"]["success"] == 5
    assert sum(found["statuses"].values()) == 5
    assert found["study"] == "done"
    assert found["baseline"]["trial"] == 0
    assert list(found["baseline"]["config"].values()) == [32, 16, 2, 2]


def test_status_agrees_with_the_table(finished: Finished) -> None:
    found = document(finished.studies, "status", "done")
    records = finished.studies.records("done")
    means = {
        trial: statistics.fmean(r.sps or 0 for r in clean_of(records, trial))
        for trial in {r.trial for r in records}
    }
    for part in ("best", "baseline"):
        assert found[part]["sps"] == pytest.approx(means[found[part]["trial"]])
    scored = {
        trial: [r.final_score for r in clean_of(records, trial) if r.final_score is not None]
        for trial in means
    }
    scores = {trial: statistics.fmean(found) for trial, found in scored.items() if found}
    assert found["best"]["trial"] == max(scores, key=lambda trial: scores[trial])
    assert found["best"]["final_score"] == pytest.approx(max(scores.values()))
    assert found["elapsed_s"] == pytest.approx(sum(r.duration or 0 for r in records))
    assert set(found["front"]) <= set(means)


def clean_of(records: list[Any], trial: int) -> list[Any]:
    """Return a config's clean measurements, or all where none is clean."""
    own = [r for r in records if r.trial == trial]
    return [r for r in own if not r.contaminated] or own


def test_list_agrees_with_status(finished: Finished) -> None:
    (entry,) = document(finished.studies, "list")
    status = document(finished.studies, "status", "done")
    assert entry == {
        "study": "done", "trials": status["trials"], "best": status["best"], "state": "ended"
    }  # fmt: skip


def test_list_of_an_empty_folder_says_how_to_begin(studies: Studies) -> None:
    ended = studies.run("list")
    assert (ended.code, ended.err) == (0, "")
    assert "tuner start" in ended.out
    assert document(studies, "list") == []


def test_show_of_a_trial_has_every_field_of_the_contract(finished: Finished) -> None:
    found = document(finished.studies, "show", "done", "2")
    assert set(CONTRACT_FIELDS) <= set(found)
    assert set(found) == {*RECORD_FIELDS, "memory_error", "replicates", "curve", "log"}
    record = finished.studies.record("done", 2)
    assert {key: found[key] for key in CONTRACT_FIELDS} == {
        key: json.loads(json.dumps(value))
        for key, value in record.as_dict().items()
        if key in CONTRACT_FIELDS
    }


def test_the_columns_of_trials_csv_begin_with_those_of_the_contract(finished: Finished) -> None:
    rows = finished.studies.rows("done")
    assert list(rows[0])[: len(CONTRACT_FIELDS)] == CONTRACT_FIELDS
    keys = [(int(row["trial"]), int(row["replicate"])) for row in rows]
    assert sorted(keys) == sorted((r.trial, r.replicate) for r in finished.studies.records("done"))


def test_show_of_a_trial_has_its_curve_and_its_replicates(finished: Finished) -> None:
    found = document(finished.studies, "show", "done", "0")
    # The baseline is measured three times; as a finalist it is not measured again.
    assert [replicate["replicate"] for replicate in found["replicates"]] == [1, 2]
    learning = [point for point in found["curve"] if point["learning"]]
    # 16,384 env-steps are 32 batches of 32 × 16.
    assert learning[-1]["env_steps"] == 16_384
    assert finished.studies.folder.joinpath(found["log"]).is_file()


def test_show_without_a_trial_lists_the_profiles(finished: Finished) -> None:
    history = document(finished.studies, "show", "done")
    assert [entry["profile"] for entry in history] == ["balanced", "max_gpu", "max_quality"]
    for entry in history:
        assert entry.keys() >= CONFIG | {"date", "file", "expected_sps", "reason"}


def test_report_shows_each_config_as_status_and_show_do(finished: Finished) -> None:
    text = finished.studies.run("report", "done").out
    status = document(finished.studies, "status", "done")
    for part in (status["best"], status["baseline"]):
        mark = "*" if part["trial"] in status["front"] else ""
        row = table_row(text, f"{part['trial']}{mark}")
        envs, steps, minibatches, epochs = part["config"].values()
        assert row[1] == f"{envs}x{steps} mb{minibatches} ep{epochs}"
        assert row[2] == f"{part['sps']:,.0f}"
    assert table_row(text, f"{status['best']['trial']}*")[-1] == (
        f"{status['best']['final_score']:.3f}"
    )


def test_report_prints_the_share_of_measured_training(finished: Finished) -> None:
    text = " ".join(finished.studies.run("report", "done").out.split())
    found = re.search(r"measured training: (\d+)% of (\d+) s in (\d+) measurements; .*", text)
    assert found is not None
    records = finished.studies.records("done")
    total = sum(r.duration or 0 for r in records)
    share = sum(r.phases["window"] for r in records) / total
    assert int(found[1]) == round(100 * share)
    assert int(found[2]) == round(total)
    assert int(found[3]) == len(records)
    # What the shares name is all of the time: they add up to 100 %, but for rounding.
    assert sum(int(n) for n in re.findall(r"(\d+)%", found[0])) == pytest.approx(100, abs=3)


def test_report_names_the_three_profiles_and_why_the_search_ended(finished: Finished) -> None:
    text = finished.studies.run("report", "done").out
    for name in ("balanced", "max_gpu", "max_quality"):
        assert f"{name}: num_envs=" in text
    assert "search ended: --trials 5 reached" in " ".join(text.split())


def test_export_prints_the_files_that_it_wrote(copied: Studies) -> None:
    ended = copied.run("export", "done", "-o", "elsewhere")
    assert ended.code == 0, ended.err
    paths = ended.out.splitlines()
    assert [path.rpartition("/")[2] for path in paths] == [
        "balanced.yaml", "max_gpu.yaml", "max_quality.yaml"
    ]  # fmt: skip
    for path in paths:
        profile = load_profile(copied.folder / path)
        own = copied.folder / "runs" / "done" / "profiles" / f"{profile.profile}.yaml"
        assert profile.as_dict() | {"measured": {}} == (
            yaml.safe_load(own.read_text()) | {"measured": {}}
        )


def test_export_leaves_the_measurements_as_they_were(copied: Studies) -> None:
    before = copied.records("done")
    assert copied.run("export", "done", "-o", "elsewhere").code == 0
    assert copied.records("done") == before


def test_doctor_prints_one_document_about_this_machine(finished: Finished) -> None:
    found = document(finished.studies, "doctor")
    assert {"system", "versions", "device", "limits", "users", "measurable"} <= set(found)
    assert found["device"]["name"] == document(finished.studies, "status", "done")["device"]["name"]


@pytest.mark.parametrize("command", READERS)
def test_output_into_a_file_holds_no_control_characters(command: str, finished: Finished) -> None:
    ended = finished.studies.run(*READERS[command])
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.endswith("\n")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ended.out)


def test_progress_into_a_file_holds_no_control_characters(finished: Finished) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", finished.ended.err + finished.ended.out)


@pytest.mark.parametrize("command", READERS)
def test_no_line_is_wider_than_a_terminal_of_60_columns(
    command: str, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    lines = finished.studies.run(*READERS[command]).out.splitlines()
    assert max(len(line) for line in lines) <= 60


def test_no_number_of_the_report_is_cut_off_at_60_columns(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = finished.studies.run("report", "done").out
    assert "…" not in text
    best = document(finished.studies, "status", "done")["best"]
    assert table_row(text, f"{best['trial']}*")[-1] == f"{best['final_score']:.3f}"


def test_a_finished_study_resumes_to_its_report_at_once(finished: Finished) -> None:
    ended = finished.studies.resume("done")
    assert ended.code == 0
    assert ended.out.strip() == finished.ended.out.strip()
    assert "trial" not in ended.err


def test_json_of_a_trial_agrees_with_its_row_in_trials_csv(finished: Finished) -> None:
    found = document(finished.studies, "show", "done", "1")
    row = next(
        r for r in finished.studies.rows("done") if (r["trial"], r["replicate"]) == ("1", "0")
    )
    for name in ("num_envs", "sps", "quality_score", "peak_memory_gb", "compile_s", "env_steps"):
        assert float(row[name]) == found[name]
    assert row["status"] == found["status"] == "success"
    assert json.loads(row["sps_ci95"]) == found["sps_ci95"]
