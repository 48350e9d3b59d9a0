"""PostgreSQL: the only truth. What it stores, who may read it, and what it says when it does not answer."""

from shared.db.core.errors import SchemaError, StoreBroken, StoreError, StoreUnavailable

__all__ = ["SchemaError", "StoreBroken", "StoreError", "StoreUnavailable"]
