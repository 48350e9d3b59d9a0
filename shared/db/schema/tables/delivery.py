"""Alerts, and how far events are sent."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from shared.db.schema.tables.metadata import APP, INSTANT, metadata

alerts = Table(
    "alerts",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Column("kind", Text, nullable=False),
    Column("recovered", Boolean, nullable=False, server_default=text("false")),
    Column("subject", Text, nullable=False, server_default=text("''")),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("logged_at", INSTANT),
    Column("due_at", INSTANT, server_default=text("now()")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lease_until", INSTANT),
    Column("summarized_count", Integer, nullable=False, server_default=text("0")),
    Column("delivered_at", INSTANT),
    Column("app", APP),
    Index("alerts_pending", "kind", "number", postgresql_where=text("due_at IS NOT NULL")),
    Index("alerts_delivered", "delivered_at", postgresql_where=text("delivered_at IS NOT NULL")),
    Index("alerts_of_kind", "kind", "at"),
)

history_order = Table("history_order", metadata)

event_delivery = Table(
    "event_delivery",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("is_enabled", Boolean, nullable=False, server_default=text("false")),
    Column("cursor_id", BigInteger),
    Column("replay_until", BigInteger, nullable=False, server_default=text("0")),
    Column("replayed_at", INSTANT),
    Column("rate", Double, nullable=False, server_default=text("50")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", INSTANT),
    Column("paused_until", INSTANT),
    Column("stopped_at", INSTANT),
    Column("last_accepted_at", INSTANT),
    Column("accepted", BigInteger, nullable=False, server_default=text("0")),
    Column("dropped", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until", INSTANT),
    Column("lease_number", BigInteger, nullable=False, server_default=text("0")),
)

event_retries = Table(
    "event_retries",
    metadata,
    Column("hub_id", BigInteger, nullable=False),
    Column("app", Text(collation="C"), nullable=False),
    Column("user_id", BigInteger),
    Column("history_id", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", INSTANT, nullable=False),
    Column("failed_at", INSTANT),
    Column("last_error", Text),
    UniqueConstraint("hub_id", "app", "user_id", name="event_retries_connection", postgresql_nulls_not_distinct=True),
    Index("event_retries_due", "due_at"),
)
