"""Connections, and what belongs to one each."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Computed, Identity, Index, Integer, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, UUID

from shared.db.schema.tables.metadata import APP, DEFAULT_APP, INSTANT, metadata

connections = Table(
    "connections",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    Column("status", Text, nullable=False),
    Column("status_since", INSTANT, nullable=False, server_default=text("now()")),
    Column("status_reason", Text),
    Column("access_token", Text),
    Column("expires_at", INSTANT),
    Column("lifetime_seconds", REAL),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("refreshed_at", INSTANT),
    Column("encrypted_refresh_token", Text),
    Column("installed_at", INSTANT),
    Column("install_id", UUID),
    Column("account_info_due_at", INSTANT),
    Column("due_at", INSTANT),
    Column("retry_not_before", INSTANT),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Column("refresh_requested", Boolean, nullable=False, server_default=text("false")),
    Column("pending_revocation", JSONB),
    Column("lease_until", INSTANT),
    Column("lease_number", BigInteger, nullable=False, server_default=text("0")),
    Column(
        "generation",
        BigInteger,
        nullable=False,
        server_default=text("((EXTRACT(epoch FROM clock_timestamp()) * (1000000)::numeric))::bigint"),
    ),
    Column("revocation_alerted", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", INSTANT, nullable=False, server_default=text("now()")),
    Column("requested_refresh_at", INSTANT),
    Column("hub_id", BigInteger, nullable=False),
    Column("app", APP, nullable=False, server_default=DEFAULT_APP),
    Column("user_id", BigInteger),
    Column("customer", Text),
)
_c = connections.c
Index("connections_identity", _c.hub_id, _c.app, _c.user_id, unique=True, postgresql_nulls_not_distinct=True)
Index("connections_customer", _c.customer, postgresql_where=_c.customer.is_not(None))
Index("connections_due", _c.app, _c.due_at, _c.id, postgresql_where=_c.due_at.is_not(None))
Index(
    "connections_account_info_due",
    _c.app,
    _c.account_info_due_at,
    postgresql_where=_c.account_info_due_at.is_not(None) & _c.access_token.is_not(None),
)
Index("connections_not_active", _c.status, _c.hub_id, _c.id, postgresql_where=_c.status != text("'active'"))
Index("connections_not_active_of_app", _c.app, _c.status, _c.id, postgresql_where=_c.status != text("'active'"))
Index("connections_failing", _c.app, _c.failures, _c.id, postgresql_where=_c.failures > text("0"))
Index(
    "connections_revocation_alert_due",
    _c.app,
    _c.id,
    postgresql_where=(_c.status == text("'revoked'")) != _c.revocation_alerted,
)
Index(
    "connections_disconnect_unfinished",
    _c.id,
    postgresql_where=(_c.status == text("'disconnected'")) & _c.encrypted_refresh_token.is_not(None),
)

accounts = Table(
    "accounts",
    metadata,
    Column("connection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("hub_domain", Text),
    Column("installed_by", Text),
    # Written as PostgreSQL returns them: Alembic compares the texts.
    Column(
        "sort_key",
        Text(collation="C"),
        Computed("COALESCE('\t'::text || left(lower(hub_domain), 80), '\n'::text)"),
        nullable=False,
    ),
    Column(
        "search_text",
        Text,
        Computed("COALESCE(lower(hub_domain), ''::text) || '\n'::text || COALESCE(lower(installed_by), ''::text)"),
        nullable=False,
    ),
    Column("account_name", Text),
    Column("account_type", Text),
    Column("region", Text),
    Index("accounts_sorted", "sort_key", "connection_id", postgresql_include=["search_text"]),
)

history = Table(
    "history",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("hub_id", BigInteger, nullable=False),
    Column("at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Column("event", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("status", Text),
    Column("app", APP, nullable=False, server_default=DEFAULT_APP),
    Column("user_id", BigInteger),
    Column("customer", Text),
    Index("history_of_hub", "hub_id", "id"),
    Index("history_of_changes", "app", "at", postgresql_where=text("status IS NOT NULL")),
    Index("history_of_revocations", "app", "at", postgresql_where=text("event = 'revoked'")),
    Index("history_of_scope_changes", "app", "at", postgresql_where=text("event = 'scopes_changed'")),
    Index(
        "history_of_failures",
        "at",
        postgresql_where=text("status IS NULL AND event IN ('refresh_failed', 'recovered')"),
    ),
)

installs = Table(
    "installs",
    metadata,
    Column("install_id", UUID, primary_key=True),
    Column("connection_id", BigInteger, nullable=False),
    Column("granted_at", INSTANT, nullable=False),
    Column("stored_at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Index("installs_stored", "stored_at"),
)

single_uses = Table(
    "single_uses",
    metadata,
    Column("kind", Text(collation="C"), primary_key=True),
    Column("id", Text(collation="C"), primary_key=True),
    Column("used_by", UUID, nullable=False),
    Column("expires_at", INSTANT, nullable=False),
    Column("used_at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Index("single_uses_expired", "expires_at"),
)

refresh_requests = Table(
    "refresh_requests",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("connection_id", BigInteger, nullable=False),
    Column("token_granted_at", INSTANT, nullable=False),
    Column("attempt", Integer),
    Column("is_operator", Boolean, nullable=False, server_default=text("false")),
    Column("requested_at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Index("refresh_requests_once", "connection_id", "token_granted_at", "attempt", unique=True),
)

rotated_tokens = Table(
    "rotated_tokens",
    metadata,
    Column("connection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lease_number", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("encrypted_refresh_token", Text, nullable=False),
    Column("granted_at", INSTANT, nullable=False),
)

install_locks = Table("install_locks", metadata, Column("hub_id", BigInteger, primary_key=True, autoincrement=False))

uncertain_installs = Table(
    "uncertain_installs",
    metadata,
    Column("connection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("other_encrypted_refresh_token", Text),
    Column("kept_at", INSTANT, nullable=False, server_default=text("clock_timestamp()")),
    Column("is_order_uncertain", Boolean, nullable=False, server_default=text("true")),
)
