"""PostgreSQL: the only truth. What it stores, who may read it, and what it says when it does not answer."""

from shared.db.core.errors import SchemaError, StatementRejected, StoreError, StoreUnavailable

__all__ = ["SchemaError", "StatementRejected", "StoreError", "StoreUnavailable"]
