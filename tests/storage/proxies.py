"""Optuna's gRPC proxy in a process of its own, which can be killed and started again."""

import socket
import subprocess
import sys
import time

from tests.postgres import free_port

_SERVE = """
import sys
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


class Proxy:
    """A proxy to a database, on a free port; `stop` it in the end."""

    def __init__(self, database: str) -> None:
        """Take a port; the proxy is not started yet."""
        self._database = database
        self._port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"grpc://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the proxy and wait until it answers."""
        command = [sys.executable, "-W", "ignore", "-c", _SERVE, self._database, str(self._port)]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill the proxy."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self._port)) == 0
