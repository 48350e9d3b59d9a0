"""Databases in every state in which a page of ours looks different."""

from __future__ import annotations

from shared.db.lifecycle.imports import ImportRow
from shared.domain.errors import TemporarilyUnavailable
from shared.domain.provider import CallOutcome
from tests.support.stores import ConnectionFixture, SqlFixture

#: A word without a place to break it, as long as a domain may be.
LONG = f"{'really-long-' * 5}.{'subdomain-' * 6}.example"
WORDLESS = "a.scope.that.nobody.has.heard.of-" + "x" * 60
SCOPES = ("oauth", "crm.objects.contacts.read", "crm.schemas.custom.write", WORDLESS)
HELD, FAILING, DISCONNECTED, LONG_NAMED, IMPORTED, REVOKED = 12, 21, 22, 23, 24, 1
BIGGEST = 2**63 - 1


def nobody(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """Nothing is connected, and nothing was ever swept."""


def healthy(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """Sixty accounts, more than a page of the list shows, and six hours of refreshes."""
    for number in range(60):
        hub_id = 62515 + 104_729 * number
        connections.install(hub_id, ago=20 * number % 1000, scopes=SCOPES[:2])
        connections.stores.account_info.save(hub_id, f"shop-{number:02}.example", f"owner@shop-{number:02}.example")
    busy(sql)


def braked(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """The brake holds two of twelve that HubSpot called dead, and two more are well; one was disconnected."""
    for hub_id in range(1, HELD + 4):
        connections.install(hub_id)
    for hub_id in range(1, HELD + 1):
        connections.stores.results.save([connections.revoked(connections.claim_one(hub_id))])
    end(connections, HELD + 3)
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now()")


def troubled(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """HubSpot is down, the brake is on, and each status is there."""
    braked(connections, sql)
    for hub_id in (FAILING, DISCONNECTED, LONG_NAMED, BIGGEST):
        connections.install(hub_id, scopes=SCOPES)
        connections.stores.account_info.save(hub_id, f"shop-{hub_id}.example", f"owner@shop-{hub_id}.example")
    connections.stores.account_info.save(LONG_NAMED, LONG, f"{'first-name-' * 5}@{LONG}")
    connections.stores.results.save(
        [connections.failed(connections.claim_one(FAILING), TemporarilyUnavailable("server_error", http_status=502))]
    )
    end(connections, DISCONNECTED)
    connections.stores.imports.import_rows([ImportRow(IMPORTED, "sealed")])
    connections.stores.provider.record_outcomes(
        [CallOutcome(is_first_attempt=True, error=TemporarilyUnavailable("server_error", http_status=502))] * 5
    )
    busy(sql)


def end(connections: ConnectionFixture, hub_id: int) -> None:
    connections.stores.disconnects.mark_and_read_tokens(hub_id)
    connections.stores.disconnects.wipe_tokens(hub_id)


def busy(sql: SqlFixture) -> None:
    """As if it had been swept a moment ago, and for six hours before."""
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now(), last_success_at = now()")
    sql.rows(
        """INSERT INTO tokenkeeper.refreshes_by_minute
           SELECT date_trunc('minute', now()) - make_interval(mins => n), 40 + mod(n, 17), greatest(0, 9 - mod(n, 90))
             FROM generate_series(0, 360) AS n"""
    )


STATES = {"nobody": nobody, "healthy": healthy, "troubled": troubled}
