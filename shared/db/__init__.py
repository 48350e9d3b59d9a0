"""PostgreSQL: the only truth. What it stores, who may read it, and what it says when it does not answer."""

from shared.db.errors import SchemaError, StoreBroken, StoreUnavailable

__all__ = ["SchemaError", "StoreBroken", "StoreUnavailable"]
