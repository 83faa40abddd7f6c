"""The PostgreSQL server of the benchmarks; tests are skipped, loudly, where there is none."""

from collections.abc import Sequence

import postgres_server
import pytest
from postgres_server import PASSWORD, free_port

__all__ = ["PASSWORD", "PostgresServer", "free_port"]


class PostgresServer(postgres_server.PostgresServer):
    """A server of the tests' own; `remove` it in the end."""

    def __init__(self, *, networks: Sequence[str] = ()) -> None:
        """Make a database cluster; see the benchmarks' class."""
        if missing := postgres_server.missing_programs():
            pytest.skip(f"PostgreSQL IS NOT TESTED: {', '.join(missing)} not on PATH")
        super().__init__(networks=networks)
