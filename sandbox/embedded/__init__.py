"""A real PostgreSQL 18 and a real Valkey 9 out of wheels, as our children: for laptops and tests."""

from sandbox.embedded.postgres import EmbeddedPostgres
from sandbox.embedded.server import EmbeddedError
from sandbox.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedValkey"]
