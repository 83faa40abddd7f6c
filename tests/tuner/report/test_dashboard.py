"""optuna-dashboard, served for real."""

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.conftest import Finished
from tests.tuner.studies import Studies, kill_tree, wait_for_line

pytestmark = pytest.mark.timeout(600)


@contextmanager
def serving(studies: Studies) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve the study `done` on a free port; yields the process and the address."""
    with studies.begin("dashboard", "done", "--port", "0") as process:
        try:
            line = wait_for_line(process, "http://")
            assert line is not None
            yield process, next(word for word in line.split() if word.startswith("http://"))
        finally:
            if process.poll() is None:
                kill_tree(process.pid)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def test_the_dashboard_knows_the_study_and_ends_by_ctrl_c(finished: Finished) -> None:
    with serving(finished.studies) as (process, address):
        listed = json.loads(get(f"{address}api/studies"))["study_summaries"]
        assert [study["study_name"] for study in listed] == ["done"]
        (study_id,) = [study["study_id"] for study in listed]
        detail = json.loads(get(f"{address}api/studies/{study_id}"))
        assert [trial["number"] for trial in detail["trials"]] == [0, 1, 2, 3, 4]
        attrs = {attr["key"] for attr in detail["trials"][1]["user_attrs"]}
        assert {"status", "sps", "quality_score", "final_score"} <= attrs
        assert b"<html" in get(f"{address}dashboard/").lower()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, "")


def test_the_dashboard_listens_on_the_loopback_address_only(finished: Finished) -> None:
    with serving(finished.studies) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        listening = [
            connection.laddr
            for connection in psutil.Process(process.pid).net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert [place.ip for place in listening] == ["127.0.0.1"]
        assert address.endswith(f":{listening[0].port}/")


def test_a_page_from_elsewhere_cannot_use_the_browser_to_reach_the_studies(
    finished: Finished,
) -> None:
    with serving(finished.studies) as (_, address):
        for host, code in (("evil.example", 403), ("127.0.0.1.evil.example:80", 403)):
            request = urllib.request.Request(f"{address}api/studies", headers={"Host": host})
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=60)
            with caught.value as answer:
                assert answer.code == code
        for host in ("localhost:9000", "127.0.0.1"):  # the local end of a tunnel
            request = urllib.request.Request(f"{address}api/studies", headers={"Host": host})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
