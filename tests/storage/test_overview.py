"""Counting and listing without Optuna."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from storage.database import connect, sqlite_url
from storage.errors import NotADatabase, StudyNotFound
from storage.overview import counts, study_facts, study_names
from storage.studies import create_study, set_study_fact

Opened = Callable[..., RDBStorage]
optuna.logging.set_verbosity(optuna.logging.WARNING)


def _add(study: optuna.Study, state: TrialState) -> None:
    value = 1.0 if state == TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, value=value))


def test_trials_are_counted_by_state(opened: Opened, url: str) -> None:
    storage = opened(url)
    study = create_study(storage, "demo")
    _add(create_study(storage, "other"), TrialState.FAIL)
    none = {"complete": 0, "pruned": 0, "fail": 0, "running": 0, "waiting": 0}
    assert counts(url, "demo") == none
    for state in ("COMPLETE", "COMPLETE", "PRUNED", "RUNNING", "WAITING", "WAITING", "WAITING"):
        _add(study, TrialState[state])
    assert counts(url, "demo") == none | {"complete": 2, "pruned": 1, "running": 1, "waiting": 3}


def test_facts_and_names_are_what_was_set(opened: Opened, url: str) -> None:
    storage = opened(url)
    study = create_study(storage, "zebra")
    create_study(storage, "ant")
    set_study_fact(study, "references", {"sps": 1.5, "random_return": None})
    study.set_user_attr("note", "not ours")
    assert study_names(url) == ["zebra", "ant"]
    assert study_facts(url, "zebra") == {"references": {"sps": 1.5, "random_return": None}}
    assert study_facts(url, "ant") == {}


def test_what_is_missing_is_said(opened: Opened, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "study.db")
    for read in (counts, study_facts):
        with pytest.raises(StudyNotFound, match="no file"):
            read(url, "demo")
    assert list(tmp_path.iterdir()) == []
    opened(url)
    with pytest.raises(StudyNotFound, match="'demo'"):
        counts(url, "demo")
    (tmp_path / "empty.db").touch()
    assert study_names(sqlite_url(tmp_path / "empty.db")) == []
    with pytest.raises(StudyNotFound, match="'demo'"):
        counts(sqlite_url(tmp_path / "empty.db"), "demo")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotADatabase, match=r"notes\.txt"):
        counts(sqlite_url(tmp_path / "notes.txt"), "demo")


def test_ten_thousand_trials_are_counted_fast(opened: Opened, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "study.db")
    create_study(opened(url), "demo")
    rows = [{"number": n, "state": "COMPLETE" if n % 2 else "PRUNED"} for n in range(10_000)]
    engine = connect(url)
    with engine.begin() as connection:
        insert = "INSERT INTO trials (number, study_id, state) VALUES (:number, 1, :state)"
        connection.execute(sa.text(insert), rows)
    engine.dispose()
    start = time.perf_counter()
    found = counts(url, "demo")
    assert time.perf_counter() - start < 0.5
    assert (found["complete"], found["pruned"]) == (5000, 5000)


def test_optuna_is_not_imported() -> None:
    script = (
        "import sys, json, storage.overview, storage.telemetry, storage.csv_file;"
        "heavy = {'optuna', 'jax', 'pandas', 'tuner', 'envs'};"
        "print(json.dumps(sorted(heavy & set(sys.modules))))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert json.loads(shown.stdout) == []
