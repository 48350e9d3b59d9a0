"""What web and worker may do in the database: the privileges that their statements need, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WEB, WORKER = "tokenkeeper_web", "tokenkeeper_worker"


@dataclass(frozen=True, slots=True, order=True)
class Privilege:
    """`column` is empty where it is about the whole of it."""

    kind: str  #: SCHEMA, TABLE (also a view) or FUNCTION
    of: str
    column: str
    may: str

    def sql(self, verb: str, role: str) -> str:
        """`verb`: GRANT … TO, or REVOKE … FROM."""
        columns = f" ({self.column})" if self.column else ""
        towards = "TO" if verb == "GRANT" else "FROM"
        return f"{verb} {self.may}{columns} ON {self.kind} {self.of} {towards} {role}"


def _on(table: str, **may: str) -> Iterator[Privilege]:
    """From privileges to the columns that they are about; "" is the whole table."""
    for each, columns in may.items():
        for column in columns.split() or [""]:
            yield Privilege("TABLE", table, column, each.upper())


def _both() -> Iterator[Privilege]:
    for schema in ("tokenkeeper", "hubspot"):
        yield Privilege("SCHEMA", schema, "", "USAGE")
    yield from _on("hubspot.connections", select="")
    yield from _on("tokenkeeper.alembic_version", select="")


#: What stands in a connection's row, and is no token.
_SEEN = """
    hub_id status status_since status_reason expires_at life scopes refreshed_at installed_at install_id
    account_info_due_at due_at not_before failures last_error refresh_requested pending_revocation lease_until
    generation
"""
#: What an install, and an operator's word, write: never a lease, so that no hub gets two refreshes at once.
_WRITTEN = """
    status status_since status_reason access_token expires_at life scopes refreshed_at encrypted_refresh_token
    installed_at install_id account_info_due_at due_at not_before failures last_error refresh_requested
    pending_revocation generation
"""
_INSTALLED = """
    hub_id status status_since access_token expires_at life scopes refreshed_at encrypted_refresh_token
    installed_at install_id account_info_due_at due_at
"""


def _web() -> Iterator[Privilege]:
    """It stores installs, shows pages and takes orders. It reads no token, neither kind."""
    yield from _both()
    yield from _on("tokenkeeper.connections", select=_SEEN, insert=_INSTALLED, update=_WRITTEN)
    yield Privilege("FUNCTION", "tokenkeeper.holds_refresh_token", "", "EXECUTE")
    yield from _on("tokenkeeper.accounts", select="", insert="hub_id")  # by the trigger
    yield from _on("tokenkeeper.totals", select="", update="connections")  # by the trigger
    yield from _on("tokenkeeper.history", select="", insert="hub_id event detail status")
    yield from _on("tokenkeeper.installs", select="", insert="install_id hub_id granted_at")
    yield from _on("tokenkeeper.alerts", select="", insert="kind recovered subject detail", update="due_at")
    yield from _on("tokenkeeper.provider", select="", update="rate brake_since brake_reset_at")
    for table in ("minutes", "tally", "key_check"):
        yield from _on(f"tokenkeeper.{table}", select="")


def _worker() -> Iterator[Privilege]:
    """It refreshes, sweeps and prunes; so do the command's verbs with its login. The schema is not its to change."""
    yield from _both()
    for table in ("connections", "accounts", "tally", "key_check"):
        yield from _on(f"tokenkeeper.{table}", select="", insert="", update="")
    for table in ("alerts", "minutes"):
        yield from _on(f"tokenkeeper.{table}", select="", insert="", update="", delete="")
    for table in ("provider", "totals", "pruned"):
        yield from _on(f"tokenkeeper.{table}", select="", update="")
    # Nothing here is rewritten; but pruning locks the rows, and PostgreSQL asks for the right to update a column.
    yield from _on("tokenkeeper.history", select="", insert="", update="id", delete="")
    yield from _on("tokenkeeper.installs", select="", insert="", update="stored_at", delete="")


PRIVILEGES = {WEB: frozenset(_web()), WORKER: frozenset(_worker())}
