"""Machines for tests: network namespaces, each joined to this machine by a link of its own."""

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest


class Machine:
    """A network namespace whose link can be taken down; `remove` it in the end."""

    def __init__(self, number: int) -> None:
        """Make it; `number` tells it from the others of a test, from 0.

        The test is skipped, loudly, where that is not permitted.
        """
        self._name, self._link = f"tuner-{os.getpid()}-{number}", f"tn{os.getpid()}-{number}"
        self.network = f"10.213.{number}.0/24"
        self.address_of_server = f"10.213.{number}.1"
        inside = ["-n", self._name]
        try:
            _ip("netns", "add", self._name)
            _ip("link", "add", self._link, "type", "veth", "peer", "eth0", "netns", self._name)
            _ip("address", "add", f"{self.address_of_server}/24", "dev", self._link)
            _ip(*inside, "address", "add", f"10.213.{number}.2/24", "dev", "eth0")
            _ip(*inside, "link", "set", "lo", "up")
            _ip(*inside, "link", "set", "eth0", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            self.remove()
            pytest.skip(f"CUT CONNECTIONS ARE NOT TESTED: {error}")
        self.connect()

    @property
    def under(self) -> Sequence[str]:
        """The start of a command line that runs the rest on this machine."""
        # Not `ip netns exec`, which hides the control groups.
        return ("nsenter", f"--net=/run/netns/{self._name}", "--")

    def connect(self) -> None:
        """Take its link up."""
        _ip("link", "set", self._link, "up")

    def cut_off(self) -> None:
        """Take its link down: what is sent gets no answer, not even a refusal."""
        _ip("link", "set", self._link, "down")

    def remove(self) -> None:
        """Delete namespace and link, as far as they were made."""
        if shutil.which("ip") is not None:
            delete = ["ip", "netns", "delete", self._name]
            subprocess.run(delete, capture_output=True, check=False)
            subprocess.run(["ip", "link", "delete", self._link], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, check=True)
