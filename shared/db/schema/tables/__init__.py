"""The internal tables for Alembic's comparison with a database: a test runs it after the migrations.

The comments of columns are in the SQL of the migrations.
"""

from shared.db.schema.tables import apps, connections, delivery, installation
from shared.db.schema.tables.metadata import SCHEMA, metadata

__all__ = ["SCHEMA", "apps", "connections", "delivery", "installation", "metadata"]
