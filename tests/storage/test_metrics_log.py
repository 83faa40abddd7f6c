"""Metrics of a training as JSON lines: whole, once each, whatever killed it."""

import math
from pathlib import Path

from storage.metrics_log import FILE_NAME, MetricsLog, read_metrics


def fill(folder: Path, *, after_update: int = 0, to_update: int = 3) -> None:
    log = MetricsLog(folder, after_update=after_update)
    for update in range(after_update + 1, to_update + 1):
        log.add({"update": update, "env_steps": 10 * update, "entropy": 0.5})
    log.sync()
    log.close()


def test_a_training_that_goes_on_has_every_line_once(tmp_path: Path) -> None:
    fill(tmp_path, to_update=5)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write('{"update": 6, "env_st')  # a kill cut it short
    fill(tmp_path, after_update=3, to_update=6)
    assert [line["update"] for line in read_metrics(tmp_path / FILE_NAME)] == [1, 2, 3, 4, 5, 6]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, after_update=0)
    log.add({"update": 1, "env_steps": 10, "entropy": math.nan, "mean_return": None})
    log.close()
    assert '"entropy": null, "mean_return": null' in (tmp_path / FILE_NAME).read_text()


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / FILE_NAME) == []
