"""What a trial costs beside its training as workers are added to one study; part of `soak.py`."""

import itertools
import json
import statistics
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from crowd import Crowd
from killer import role_of
from postgres_server import PostgresServer
from ppo_document import say

from storage.beats import BEAT_ATTR

SIZES = (1, 2, 4, 8, 16, 32, 64)
TRIAL_S = 5.0
WINDOW_S = 60.0
JOINING_S = 400.0
"""Longest that workers may take to begin their first trials."""
_FOR_EVER = "1000000"


def measure_curve(
    folder: Path, server: PostgresServer, *, is_quick: bool
) -> tuple[dict[str, Any], str]:
    """Add workers to a study, and measure with each number of them."""
    url = server.url.render_as_string(hide_password=False)
    crowd = Crowd(folder, url, trial_s=TRIAL_S)
    engine = sa.create_engine(url)
    points: list[dict[str, Any]] = []
    crowd.keep_leader("--trials", _FOR_EVER)
    try:
        for size in SIZES[:3] if is_quick else SIZES:
            for number in range(points[-1]["workers"] if points else 1, size):
                crowd.keep_worker(f"worker-{number}")
            point = _measure(engine, server, size, 15.0 if is_quick else WINDOW_S)
            points.append(point)
            say(_line(point))
            if point["joined"] < size:
                break
    finally:
        crowd.dismiss()
        engine.dispose()
    found = {"trial_s": TRIAL_S, "cores": psutil.cpu_count(), "points": points}
    head = "workers  overhead  trials/s  CPU s a trial: worker, its children, database  cores busy"
    return found, "\n".join([head, *map(_line, points), *crowd.surprises])


def _measure(
    engine: sa.Engine, server: PostgresServer, size: int, window_s: float
) -> dict[str, Any]:
    """Wait until all have begun a trial, then count the trials that end in a window."""
    deadline = time.monotonic() + JOINING_S
    while (joined := len(_beats(engine))) < size and time.monotonic() < deadline:
        time.sleep(1.0)
    time.sleep(TRIAL_S)
    began_at = datetime.now(UTC).replace(tzinfo=None)  # as Optuna writes it
    before, began, busy = _counters(engine, server), time.monotonic(), psutil.cpu_times()
    time.sleep(window_s)
    ended_at = datetime.now(UTC).replace(tzinfo=None)
    after, seconds, now = _counters(engine, server), time.monotonic() - began, psutil.cpu_times()
    used = {name: after[name] - before[name] for name in after}
    trials = max(1.0, used["trials"])
    idle = now.idle + now.iowait - busy.idle - busy.iowait
    return {
        "workers": size,
        "joined": joined,
        "window_s": seconds,
        "trials": int(used["trials"]),
        "overhead": _overhead(engine, began_at, ended_at, size=size),
        "worker_cpu_s": used["worker"] / trials,
        "children_cpu_s": used["children"] / trials,
        "database_cpu_s": used["database"] / trials,
        "cores_busy": (psutil.cpu_count() or 1) - idle / seconds,
        "connections": int(after["connections"]),
        "worker_memory_bytes": after["memory"] / max(1, joined),
        "memory_free_bytes": psutil.virtual_memory().available,
    }


def _overhead(engine: sa.Engine, since: datetime, until: datetime, *, size: int) -> float:
    """Return the share of the workers' time that is not training.

    From one end of a worker's trials to its next; where not all have ended two, which are then the
    quick ones, from how many trials ended.
    """
    ends = {
        worker: sorted(end for end in own if end is not None and since < end <= until)
        for worker, own in _beats(engine).items()
    }
    if len(ends) < size or min(map(len, ends.values())) < 2:
        seconds = (until - since).total_seconds()
        return 1.0 - TRIAL_S * sum(map(len, ends.values())) / (size * seconds)
    steps = [
        (after - before).total_seconds()
        for own in ends.values()
        for before, after in itertools.pairwise(own)
    ]
    return 1.0 - TRIAL_S / statistics.fmean(steps)


def _beats(engine: sa.Engine) -> dict[str, list[datetime | None]]:
    """Return when the trials of each worker ended, None of those that run."""
    query = sa.text(
        "SELECT value_json, datetime_complete FROM trials JOIN trial_system_attributes "
        "USING (trial_id) WHERE key = :beat AND state IN ('RUNNING', 'COMPLETE')"
    )
    found: dict[str, list[datetime | None]] = {}
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("trial_system_attributes"):
            return found  # the leader has not begun
        for beat, ended in connection.execute(query, {"beat": BEAT_ATTR}):
            found.setdefault(json.loads(beat)["worker"], []).append(ended)
    return found


def _workers() -> list[psutil.Process]:
    everyone = psutil.Process().children(recursive=True)
    return [process for process in everyone if role_of(process) in ("leader", "worker")]


def _counters(engine: sa.Engine, server: PostgresServer) -> dict[str, float]:
    """Return the trials that have ended, and CPU seconds since the start, by who used them."""
    with engine.connect() as connection:
        query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
        trials = float(connection.scalar(sa.text(query)) or 0)
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        connections = float(connection.scalar(sa.text(query)) or 0)
    found = {"trials": trials, "connections": connections}
    found |= dict.fromkeys(("worker", "children", "database", "memory"), 0.0)
    for process in _workers():
        with suppress(psutil.Error):
            times = process.cpu_times()
            found["worker"] += times.user + times.system
            found["children"] += times.children_user + times.children_system
            found["memory"] += process.memory_info().rss
    for process in server.processes():
        with suppress(psutil.Error):
            times = process.cpu_times()
            found["database"] += times.user + times.system
    return found


def _line(point: dict[str, Any]) -> str:
    costs = [point[f"{who}_cpu_s"] for who in ("worker", "children", "database")]
    return (
        f"{point['workers']:>7}{point['overhead']:>10.1%}"
        f"{point['trials'] / point['window_s']:>10.2f}{'':>15}"
        f"{costs[0]:>7.2f}{costs[1]:>15.2f}{costs[2]:>10.2f}{point['cores_busy']:>13.2f}"
    )
