"""What web and worker may do in the database: the privileges that their statements need, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: The processes with a login of their own.
WEB, WORKER = "web", "worker"


@dataclass(frozen=True, slots=True, order=True)
class Privilege:
    kind: str  #: SCHEMA, TABLE (also a view) or FUNCTION
    name: str  #: of the schema, table or function
    column: str  #: empty: the privilege is on all of it
    action: str  #: SELECT, USAGE …

    def sql(self, verb: str, role: str) -> str:
        """`verb`: GRANT or REVOKE."""
        columns = f" ({self.column})" if self.column else ""
        preposition = "TO" if verb == "GRANT" else "FROM"
        return f"{verb} {self.action}{columns} ON {self.kind} {self.name} {preposition} {role}"


#: The columns of a connection's row that contain no token.
_READABLE_COLUMNS = """
    id hub_id app user_id customer status status_since status_reason expires_at lifetime_seconds scopes
    refreshed_at installed_at install_id account_info_due_at due_at retry_not_before failures last_error
    refresh_requested pending_revocation lease_until generation
"""
#: What an install or an operator's action changes: never a lease, so that no hub gets two refreshes at once.
_UPDATED_COLUMNS = """
    status status_since status_reason access_token expires_at lifetime_seconds scopes refreshed_at
    encrypted_refresh_token installed_at install_id account_info_due_at due_at retry_not_before failures last_error
    refresh_requested pending_revocation generation customer
"""
#: What the first install of a hub sets.
_INSERTED_COLUMNS = """
    hub_id app user_id customer status status_since access_token expires_at lifetime_seconds scopes refreshed_at
    encrypted_refresh_token installed_at install_id account_info_due_at due_at
"""
#: A line of the history; PostgreSQL gives it its id and time.
_HISTORY_COLUMNS = "app hub_id user_id customer event detail status"


def _web_privileges() -> Iterator[Privilege]:
    """Web stores installs, shows pages and carries out an operator's actions. It reads neither kind of token."""
    yield from _common_privileges()
    yield from _table(
        "tokenkeeper.connections", select=_READABLE_COLUMNS, insert=_INSERTED_COLUMNS, update=_UPDATED_COLUMNS
    )
    yield Privilege("FUNCTION", "tokenkeeper.has_refresh_token", "", "EXECUTE")
    yield from _table("tokenkeeper.history", select="", insert=_HISTORY_COLUMNS)
    yield from _table("tokenkeeper.installs", select="", insert="install_id connection_id granted_at")
    yield from _table("tokenkeeper.install_locks", select="", insert="", update="")
    yield from _table("tokenkeeper.single_uses", select="", insert="kind id used_by expires_at", update="id")
    yield from _table("tokenkeeper.uncertain_installs", select="connection_id is_order_uncertain")
    yield Privilege("FUNCTION", "tokenkeeper.keep_uncertain_install", "", "EXECUTE")
    yield from _table("tokenkeeper.refresh_requests", select="", insert="connection_id token_granted_at is_operator")
    yield from _table("tokenkeeper.alerts", select="", insert="app kind recovered subject detail", update="due_at")
    yield from _table("tokenkeeper.provider", select="", update="rate brake_since brake_reset_at")
    for table in (
        "accounts",
        "apps",
        "connection_counts",
        "refreshes_by_minute",
        "refresh_counters",
        "key_check",
        "oldest_snapshot",
        "event_delivery",
        "event_retries",
    ):
        yield from _table(f"tokenkeeper.{table}", select="")
    yield from _table("tokenkeeper.journals", select="")


def _worker_privileges() -> Iterator[Privilege]:
    """The worker, and the command with the worker's login, refresh, sweep and prune. They cannot change the schema."""
    yield from _common_privileges()
    for table in ("connections", "accounts", "apps", "refresh_counters", "key_check", "install_locks"):
        yield from _table(f"tokenkeeper.{table}", select="", insert="", update="")
    for table in ("alerts", "refreshes_by_minute", "refresh_requests", "rotated_tokens", "event_retries"):
        yield from _table(f"tokenkeeper.{table}", select="", insert="", update="", delete="")
    yield from _table("tokenkeeper.provider", select="", insert="app", update="")
    yield from _table("tokenkeeper.connection_counts", select="")
    for table in ("pruning_state", "oldest_snapshot", "event_delivery"):
        yield from _table(f"tokenkeeper.{table}", select="", update="")
    yield from _table("tokenkeeper.journals", select="", insert="", update="")
    yield from _table("tokenkeeper.reported_uninstalls", select="", insert="", update="", delete="")
    # History is only added to: what may be deleted of it, a function of the owner deletes.
    yield from _table("tokenkeeper.history", select="", insert=_HISTORY_COLUMNS)
    yield Privilege("FUNCTION", "tokenkeeper.prune_history", "", "EXECUTE")
    yield from _table("tokenkeeper.uncertain_installs", select="", update="other_encrypted_refresh_token", delete="")
    yield Privilege("FUNCTION", "tokenkeeper.keep_uncertain_install", "", "EXECUTE")
    # No statement updates it, but pruning locks rows, for which PostgreSQL demands UPDATE on some column.
    yield from _table("tokenkeeper.installs", select="", insert="", update="stored_at", delete="")
    yield from _table("tokenkeeper.single_uses", select="", insert="", update="id", delete="")


def _common_privileges() -> Iterator[Privilege]:
    for schema in ("tokenkeeper", "hubspot"):
        yield Privilege("SCHEMA", schema, "", "USAGE")
    yield from _table("hubspot.connections", select="")
    yield from _table("tokenkeeper.connection_details", select="")
    yield from _table("tokenkeeper.alembic_version", select="")


def _table(name: str, **columns_by_action: str) -> Iterator[Privilege]:
    """One privilege per column, or one on the whole table where an action has no columns."""
    for action, columns in columns_by_action.items():
        for column in columns.split() or [""]:
            yield Privilege("TABLE", name, column, action.upper())


PRIVILEGES = {WEB: frozenset(_web_privileges()), WORKER: frozenset(_worker_privileges())}
