"""A PostgreSQL server of a script's or a test's own, which can be stopped, killed and started."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import sqlalchemy as sa

PASSWORD = "s3cret p@ss"
PROGRAMS = ("initdb", "pg_ctl", "postgres")


def missing_programs() -> list[str]:
    """Return the names of PostgreSQL's programs that are not on PATH."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class PostgresServer:
    """A server on a free port, asking for a password; `remove` it in the end."""

    def __init__(
        self, *, networks: Sequence[str] = (), is_durable: bool = False, connections: int = 100
    ) -> None:
        """Make a database cluster; it is not started yet.

        Args:
            networks: whose clients it takes beside this machine's own, as 10.0.0.0/24.
            is_durable: whether a commit waits for the disk, as it does by default.
            connections: how many it takes at once; 100 is PostgreSQL's own default.

        Raises:
            RuntimeError: PostgreSQL refused.
        """
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
        listen = "*" if networks else "127.0.0.1"
        self._settings = f"-p {self._port} -c listen_addresses={listen} "
        self._settings += f"-c unix_socket_directories= -c max_connections={connections}"
        self._settings += "" if is_durable else " -c fsync=off"
        _run([*self._owner, "initdb", "-D", str(self._data), "-U", "tuner", "-A", "scram-sha-256",
              f"--pwfile={password}", "-E", "UTF8", "--no-sync"])  # fmt: skip
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {network} scram-sha-256\n" for network in networks)
        self.url = sa.URL.create(
            "postgresql+psycopg", "tuner", PASSWORD, "127.0.0.1", self._port, database="postgres"
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._control("-l", str(self._folder / "log"), "-o", self._settings, "start")

    def stop(self) -> None:
        """Stop the server as a crash would, at once and without a word to its clients."""
        self._control("-m", "immediate", "stop")

    def kill(self) -> int:
        """Kill the server and all its processes; return the id of the first one."""
        self.processes()[0].suspend()  # or it would start others, and end them in order
        first, *others = self.processes()
        family = [*others, first]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)
        return first.pid

    def processes(self) -> list[psutil.Process]:
        """Return the processes of a server that runs, the first one before the others."""
        first = psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))
        return [first, *first.children()]

    def remove(self) -> None:
        """Stop the server if it runs, and delete the cluster."""
        if (self._data / "postmaster.pid").exists():
            with suppress(RuntimeError):  # it was killed
                self.stop()
        shutil.rmtree(self._folder)

    def _control(self, *arguments: str) -> None:
        command = ["pg_ctl", "-D", str(self._data), "-w", "-t", "60"]
        _run([*self._owner, *command, *arguments])


def _has_user(name: str) -> bool:
    found = subprocess.run(["getent", "passwd", name], capture_output=True, check=False)
    return found.returncode == 0


def _run(command: list[str]) -> None:
    # Files, not pipes: the server would hold a pipe open and the call would never return.
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read()}")
