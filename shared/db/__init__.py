"""PostgreSQL: the only truth. What it stores, who may read it, and what it says when it does not answer."""

from shared.optional_imports import import_without

import_without(("asyncio",), "sqlalchemy", "sqlalchemy.dialects.postgresql.psycopg2")

from shared.db.core.errors import (  # noqa: E402
    SchemaError,
    StatementRejected,
    StoreError,
    StoreUnavailable,
)

__all__ = ["SchemaError", "StatementRejected", "StoreError", "StoreUnavailable"]
