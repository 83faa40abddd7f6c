"""The PostgreSQL server of the benchmarks; tests are skipped, loudly, where there is none."""

import postgres_server
import pytest
from postgres_server import PASSWORD, free_port

__all__ = ["PASSWORD", "PostgresServer", "free_port"]


class PostgresServer(postgres_server.PostgresServer):
    """A server of the tests' own; `remove` it in the end."""

    def __init__(self, *, address: str = "127.0.0.1") -> None:
        """Make a database cluster; it is not started yet."""
        if missing := postgres_server.missing_programs():
            pytest.skip(f"PostgreSQL IS NOT TESTED: {', '.join(missing)} not on PATH")
        super().__init__(address=address)
