"""One row for the whole installation."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.schema.tables.metadata import INSTANT, metadata

oldest_snapshot = Table(
    "oldest_snapshot",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("xmin_horizon", Text),
    Column("since", INSTANT),
    Column("holder", JSONB, nullable=False, server_default=text("'{}'")),
    Column("queue_usage", Double, nullable=False, server_default=text("0")),
    Column("is_alerted", Boolean, nullable=False, server_default=text("false")),
    Column("is_queue_alerted", Boolean, nullable=False, server_default=text("false")),
)

pruning_state = Table(
    "pruning_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("pruned_at", INSTANT),
)

key_check = Table(
    "key_check",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("encrypted_check_value", Text, nullable=False),
)
