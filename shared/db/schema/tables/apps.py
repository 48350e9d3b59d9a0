"""What is kept for each app: HubSpot's state, the journal, and counts."""

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
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.db.schema.tables.metadata import APP, DEFAULT_APP, INSTANT, metadata

apps = Table(
    "apps",
    metadata,
    Column("app", APP, primary_key=True),
    Column("required_scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("is_user_level", Boolean, nullable=False, server_default=text("false")),
    Column("seen_at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Column("counted_at", INSTANT),
    Column("counted_scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("lacking", BigInteger, nullable=False, server_default=text("0")),
    Column("lacking_by_scope", JSONB, nullable=False, server_default=text("'{}'")),
)

provider = Table(
    "provider",
    metadata,
    Column("condition", Text, nullable=False, server_default=text("'ok'")),
    Column("since", INSTANT, server_default=text("now()")),
    Column("reason", Text),
    Column("consecutive_no_answer", Integer, nullable=False, server_default=text("0")),
    Column("consecutive_unknown", Integer, nullable=False, server_default=text("0")),
    Column("paused_until", INSTANT),
    Column("rate", Double),
    Column("bucket_level", Double, nullable=False, server_default=text("1")),
    Column("bucket_refilled_at", INSTANT, nullable=False, server_default=text("now()")),
    Column("swept_at", INSTANT),
    Column("last_success_at", INSTANT),
    Column("brake_since", INSTANT),
    Column("brake_reset_at", INSTANT),
    Column("has_postponed", Boolean, nullable=False, server_default=text("false")),
    Column("swept_without_beat_since", INSTANT),
    Column("app", APP, primary_key=True, server_default=DEFAULT_APP),
)

connection_counts = Table(
    "connection_counts",
    metadata,
    Column("connections", BigInteger, nullable=False, server_default=text("0")),
    Column("app", APP, primary_key=True, server_default=DEFAULT_APP),
)

refresh_counters = Table(
    "refresh_counters",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("total", Double, nullable=False),
    Column("app", APP, primary_key=True, server_default=DEFAULT_APP),
)

refreshes_by_minute = Table(
    "refreshes_by_minute",
    metadata,
    Column("minute", INSTANT, primary_key=True),
    Column("refreshed", BigInteger, nullable=False, server_default=text("0")),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),
)

journals = Table(
    "journals",
    metadata,
    Column("app", APP, primary_key=True),
    Column("next_offset", Text),
    Column("state", Text, nullable=False, server_default=text("'starting'")),
    Column("since", INSTANT, nullable=False, server_default=text("now()")),
    Column("reason", Text),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("due_at", INSTANT, nullable=False, server_default=text("now()")),
    Column("lease_until", INSTANT),
    Column("lease_number", BigInteger, nullable=False, server_default=text("0")),
    Column("read_at", INSTANT),
    Column("restarted_at", INSTANT),
    Column("unheard_since", INSTANT),
    Column("asked_up_to", BigInteger, nullable=False, server_default=text("0")),
    Column("is_alerted", Boolean, nullable=False, server_default=text("false")),
)

reported_uninstalls = Table(
    "reported_uninstalls",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("app", APP, nullable=False),
    Column("hub_id", BigInteger, nullable=False),
    Column("user_id", BigInteger),
    Column("occurred_at", INSTANT),
    Column("witness", Text, nullable=False),
    Column("reported_at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Column("settled_at", INSTANT),
)
_r = reported_uninstalls.c
UniqueConstraint(
    _r.app, _r.hub_id, _r.user_id, _r.occurred_at, name="reported_uninstalls_once", postgresql_nulls_not_distinct=True
)
Index("reported_uninstalls_unsettled", _r.app, _r.id, postgresql_where=_r.settled_at.is_(None))
Index("reported_uninstalls_reported", _r.reported_at)
