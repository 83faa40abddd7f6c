"""A PostgreSQL server of the tests' own, which can be stopped and started again."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

PASSWORD = "s3cret p@ss"
PROGRAMS = ("initdb", "pg_ctl", "postgres")


class PostgresServer:
    """A server on a free port, asking for a password; `remove` it in the end."""

    def __init__(self) -> None:
        """Make a database cluster; it is not started yet."""
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if missing:
            pytest.skip(f"PostgreSQL IS NOT TESTED: {', '.join(missing)} not on PATH")
        self._folder = Path(tempfile.mkdtemp(prefix="tuner-postgres-"))
        self._owner: list[str] = []
        if os.getuid() == 0:
            # The server refuses to run as root.
            user = "postgres" if _has_user("postgres") else "nobody"
            shutil.chown(self._folder, user)
            self._owner = ["setpriv", f"--reuid={user}", "--clear-groups", "--"]
        password = self._folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._data, self._port = self._folder / "data", free_port()
        _run([*self._owner, "initdb", "-D", str(self._data), "-U", "tuner", "-A", "scram-sha-256",
              f"--pwfile={password}", "-E", "UTF8", "--no-sync"])  # fmt: skip
        self.url = sa.URL.create(
            "postgresql+psycopg", "tuner", PASSWORD, "127.0.0.1", self._port, database="postgres"
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        flags = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        log = str(self._folder / "log")
        self._control("-l", log, "-o", f"{flags} -c fsync=off", "start")

    def stop(self) -> None:
        """Stop the server as a crash would, at once and without a word to its clients."""
        self._control("-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop the server if it runs, and delete the cluster."""
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder)

    def _control(self, *arguments: str) -> None:
        command = ["pg_ctl", "-D", str(self._data), "-w", "-t", "30"]
        _run([*self._owner, *command, *arguments])


def _has_user(name: str) -> bool:
    found = subprocess.run(["getent", "passwd", name], capture_output=True, check=False)
    return found.returncode == 0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _run(command: list[str]) -> None:
    # Files, not pipes: the server would hold a pipe open and the call would never return.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        if done.returncode:
            output.seek(0)
            pytest.fail(f"{' '.join(command)}: {output.read()}")
