"""What the dashboard shows: read back by the dashboard's own functions, from real databases."""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.storages import RDBStorage
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from storage.dashboard import Attributes, file, has_file, metric_name, note, plot, show, write_file
from storage.studies import create_study

Open = Callable[..., RDBStorage]


def figure(points: int) -> dict[str, Any]:
    return {"data": [{"type": "scatter", "y": list(range(points))}], "layout": {}}


def study_with_a_trial(opened: Open, url: str) -> tuple[RDBStorage, optuna.Study, int]:
    storage = opened(url)
    study = create_study(storage, "s")
    study.add_trial(optuna.trial.create_trial(value=0.5))
    return storage, study, study.trials[0]._trial_id


def put(url: str, *groups: Attributes, files: dict[int, Attributes] | None = None) -> int:
    return show(url, "s", lambda _: groups, lambda _: files or {})


def shown(storage: RDBStorage, study: optuna.Study) -> dict[str, Any]:
    attributes = storage.get_study_system_attrs(study._study_id)
    return {k: json.loads(v) for k, v in get_plotly_graph_objects(attributes).items()}


def test_what_is_shown_is_what_the_dashboard_reads(opened: Open, url: str, tmp_path: Path) -> None:
    storage, study, trial_id = study_with_a_trial(opened, url)
    write_file(tmp_path, trial_id, "curve.svg", "<svg/>")
    assert has_file(tmp_path, trial_id, "curve.svg")
    text = "long " * 1000
    groups = [metric_name("score"), note(text), note("of a trial", trial_id), plot("p", figure(3))]
    files = {trial_id: file(trial_id, "curve.svg")}
    assert put(url, *groups, files=files) > 0
    assert study.metric_names == ["score"]
    assert get_note(study) == text
    assert shown(storage, study) == {"p": figure(3)}
    (meta,) = get_all_artifact_meta(study.trials[0], storage=storage)
    assert (meta.filename, meta.mimetype) == ("curve.svg", "image/svg+xml")
    with FileSystemArtifactStore(tmp_path).open_reader(meta.artifact_id) as reader:
        assert reader.read() == b"<svg/>"
    assert put(url, *groups, files=files) == 0


def test_a_shorter_plot_or_note_leaves_nothing_of_the_longer_one(opened: Open, url: str) -> None:
    storage, study, _ = study_with_a_trial(opened, url)
    put(url, plot("p", figure(5000)), note("long " * 1000))
    assert shown(storage, study) == {"p": figure(5000)}
    put(url, plot("p", figure(2)), note("short"))
    assert shown(storage, study) == {"p": figure(2)}
    assert get_note(study) == "short"


def test_a_note_that_somebody_edited_stays_theirs(opened: Open, url: str) -> None:
    _, study, _ = study_with_a_trial(opened, url)
    put(url, note("ours"))
    save_note(study, "theirs")
    put(url, note("ours, anew"))
    assert get_note(study) == "theirs"


def test_workers_that_end_together_write_one_after_another(opened: Open, url: str) -> None:
    _, study, _ = study_with_a_trial(opened, url)
    with ThreadPoolExecutor(4) as pool:
        texts = [f"of worker {number}" for number in range(4)]
        list(pool.map(lambda text: put(url, note(text), plot("p", figure(900))), texts))
    assert get_note(study) in texts


def test_the_ids_of_the_trials_are_told(opened: Open, url: str) -> None:
    _, _, trial_id = study_with_a_trial(opened, url)
    seen: list[Mapping[int, int]] = []
    show(url, "s", lambda ids: seen.append(ids) or [], lambda _: {})
    assert seen == [{0: trial_id}]
