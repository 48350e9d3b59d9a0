"""The internal tables for Alembic's comparison with a database: a test runs it after the migrations."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, TIMESTAMP, UUID

SCHEMA = "tokenkeeper"

metadata = MetaData(schema=SCHEMA)
_instant = TIMESTAMP(timezone=True)
_app = Text(collation="C")
_default_app = text("'default'")

connections = Table(
    "connections",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    Column("status", Text, nullable=False),
    Column("status_since", _instant, nullable=False, server_default=text("now()")),
    Column("status_reason", Text),
    Column("access_token", Text),
    Column("expires_at", _instant),
    Column("lifetime_seconds", REAL),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("refreshed_at", _instant),
    Column("encrypted_refresh_token", Text),
    Column("installed_at", _instant),
    Column("install_id", UUID),
    Column("account_info_due_at", _instant),
    Column("due_at", _instant),
    Column("retry_not_before", _instant),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Column("refresh_requested", Boolean, nullable=False, server_default=text("false")),
    Column("pending_revocation", JSONB),
    Column("lease_until", _instant),
    Column("lease_number", BigInteger, nullable=False, server_default=text("0")),
    Column(
        "generation",
        BigInteger,
        nullable=False,
        server_default=text("((EXTRACT(epoch FROM clock_timestamp()) * (1000000)::numeric))::bigint"),
    ),
    Column("revocation_alerted", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", _instant, nullable=False, server_default=text("now()")),
    Column("requested_refresh_at", _instant),
    Column("hub_id", BigInteger, nullable=False),
    Column("app", _app, nullable=False, server_default=_default_app),
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
    Column("at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Column("event", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("status", Text),
    Column("app", _app, nullable=False, server_default=_default_app),
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
    Column("granted_at", _instant, nullable=False),
    Column("stored_at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Index("installs_stored", "stored_at"),
)

single_uses = Table(
    "single_uses",
    metadata,
    Column("kind", Text(collation="C"), primary_key=True),
    Column("id", Text(collation="C"), primary_key=True),
    Column("used_by", UUID, nullable=False),
    Column("expires_at", _instant, nullable=False),
    Column("used_at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Index("single_uses_expired", "expires_at"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", UUID, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Column("kind", Text, nullable=False),
    Column("recovered", Boolean, nullable=False, server_default=text("false")),
    Column("subject", Text, nullable=False, server_default=text("''")),
    Column("detail", JSONB, nullable=False, server_default=text("'{}'")),
    Column("logged_at", _instant),
    Column("due_at", _instant, server_default=text("now()")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("lease_until", _instant),
    Column("summarized_count", Integer, nullable=False, server_default=text("0")),
    Column("delivered_at", _instant),
    Column("app", _app),
    Index("alerts_pending", "kind", "number", postgresql_where=text("due_at IS NOT NULL")),
    Index("alerts_delivered", "delivered_at", postgresql_where=text("delivered_at IS NOT NULL")),
    Index("alerts_of_kind", "kind", "at"),
)

provider = Table(
    "provider",
    metadata,
    Column("condition", Text, nullable=False, server_default=text("'ok'")),
    Column("since", _instant, server_default=text("now()")),
    Column("reason", Text),
    Column("consecutive_no_answer", Integer, nullable=False, server_default=text("0")),
    Column("consecutive_unknown", Integer, nullable=False, server_default=text("0")),
    Column("paused_until", _instant),
    Column("rate", Double),
    Column("bucket_level", Double, nullable=False, server_default=text("1")),
    Column("bucket_refilled_at", _instant, nullable=False, server_default=text("now()")),
    Column("swept_at", _instant),
    Column("last_success_at", _instant),
    Column("brake_since", _instant),
    Column("brake_reset_at", _instant),
    Column("has_postponed", Boolean, nullable=False, server_default=text("false")),
    Column("swept_without_beat_since", _instant),
    Column("app", _app, primary_key=True, server_default=_default_app),
)

apps = Table(
    "apps",
    metadata,
    Column("app", _app, primary_key=True),
    Column("required_scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("is_user_level", Boolean, nullable=False, server_default=text("false")),
    Column("seen_at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Column("counted_at", _instant),
    Column("counted_scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("lacking", BigInteger, nullable=False, server_default=text("0")),
    Column("lacking_by_scope", JSONB, nullable=False, server_default=text("'{}'")),
)

refresh_requests = Table(
    "refresh_requests",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("connection_id", BigInteger, nullable=False),
    Column("token_granted_at", _instant, nullable=False),
    Column("attempt", Integer),
    Column("is_operator", Boolean, nullable=False, server_default=text("false")),
    Column("requested_at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Index("refresh_requests_once", "connection_id", "token_granted_at", "attempt", unique=True),
)

rotated_tokens = Table(
    "rotated_tokens",
    metadata,
    Column("connection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lease_number", BigInteger, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("encrypted_refresh_token", Text, nullable=False),
    Column("granted_at", _instant, nullable=False),
)

install_locks = Table("install_locks", metadata, Column("hub_id", BigInteger, primary_key=True, autoincrement=False))

oldest_snapshot = Table(
    "oldest_snapshot",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("xmin_horizon", Text),
    Column("since", _instant),
    Column("holder", JSONB, nullable=False, server_default=text("'{}'")),
    Column("queue_usage", Double, nullable=False, server_default=text("0")),
    Column("is_alerted", Boolean, nullable=False, server_default=text("false")),
    Column("is_queue_alerted", Boolean, nullable=False, server_default=text("false")),
)

uncertain_installs = Table(
    "uncertain_installs",
    metadata,
    Column("connection_id", BigInteger, primary_key=True, autoincrement=False),
    Column("other_encrypted_refresh_token", Text),
    Column("kept_at", _instant, nullable=False, server_default=text("clock_timestamp()")),
)

connection_counts = Table(
    "connection_counts",
    metadata,
    Column("connections", BigInteger, nullable=False, server_default=text("0")),
    Column("app", _app, primary_key=True, server_default=_default_app),
)

refreshes_by_minute = Table(
    "refreshes_by_minute",
    metadata,
    Column("minute", _instant, primary_key=True),
    Column("refreshed", BigInteger, nullable=False, server_default=text("0")),
    Column("failed", BigInteger, nullable=False, server_default=text("0")),
)

refresh_counters = Table(
    "refresh_counters",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("total", Double, nullable=False),
    Column("app", _app, primary_key=True, server_default=_default_app),
)

pruning_state = Table(
    "pruning_state",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("pruned_at", _instant),
)

key_check = Table(
    "key_check",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("encrypted_check_value", Text, nullable=False),
)

journals = Table(
    "journals",
    metadata,
    Column("app", _app, primary_key=True),
    Column("next_offset", Text),
    Column("state", Text, nullable=False, server_default=text("'starting'")),
    Column("since", _instant, nullable=False, server_default=text("now()")),
    Column("reason", Text),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("due_at", _instant, nullable=False, server_default=text("now()")),
    Column("lease_until", _instant),
    Column("lease_number", BigInteger, nullable=False, server_default=text("0")),
    Column("read_at", _instant),
    Column("restarted_at", _instant),
    Column("unheard_since", _instant),
    Column("asked_up_to", BigInteger, nullable=False, server_default=text("0")),
    Column("is_alerted", Boolean, nullable=False, server_default=text("false")),
)

reported_uninstalls = Table(
    "reported_uninstalls",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("app", _app, nullable=False),
    Column("hub_id", BigInteger, nullable=False),
    Column("user_id", BigInteger),
    Column("occurred_at", _instant),
    Column("witness", Text, nullable=False),
    Column("reported_at", _instant, nullable=False, server_default=text("clock_timestamp()")),
    Column("settled_at", _instant),
)
_r = reported_uninstalls.c
UniqueConstraint(
    _r.app, _r.hub_id, _r.user_id, _r.occurred_at, name="reported_uninstalls_once", postgresql_nulls_not_distinct=True
)
Index("reported_uninstalls_unsettled", _r.app, _r.id, postgresql_where=_r.settled_at.is_(None))
Index("reported_uninstalls_reported", _r.reported_at)
history_order = Table("history_order", metadata)

event_delivery = Table(
    "event_delivery",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("is_enabled", Boolean, nullable=False, server_default=text("false")),
    Column("cursor_id", BigInteger),
    Column("replay_until", BigInteger, nullable=False, server_default=text("0")),
    Column("replayed_at", _instant),
    Column("rate", Double, nullable=False, server_default=text("50")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("failing_since", _instant),
    Column("paused_until", _instant),
    Column("stopped_at", _instant),
    Column("last_accepted_at", _instant),
    Column("accepted", BigInteger, nullable=False, server_default=text("0")),
    Column("dropped", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_until", _instant),
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
    Column("due_at", _instant, nullable=False),
    Column("failed_at", _instant),
    Column("last_error", Text),
    UniqueConstraint("hub_id", "app", "user_id", name="event_retries_connection", postgresql_nulls_not_distinct=True),
    Index("event_retries_due", "due_at"),
)
