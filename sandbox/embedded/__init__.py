"""Real PostgreSQL 18 and Valkey 9 servers from Python wheels, run as child processes: for laptops and tests."""

from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.server import EmbeddedError
from sandbox.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedValkey"]
