"""Databases in every state in which the operator's pages look different."""

from __future__ import annotations

from shared.db.lifecycle.imports import ImportRow
from shared.domain.account import AccountDetails
from shared.domain.errors import TemporarilyUnavailable
from shared.domain.provider import CallOutcome
from tests.support.stores import ConnectionFixture, SqlFixture

#: As long as a domain may be, and without a place to break the line.
LONG_DOMAIN = f"{'really-long-' * 5}.{'subdomain-' * 6}.example"
#: As HubSpot lets people name their accounts: in one word, and with signs of HTML.
LONG_ACCOUNT = AccountDetails(None, f"{'Donaudampfschiff' * 8}<b>&amp;", "DEVELOPER_TEST", "eu1")
UNKNOWN_SCOPE = "a.scope.without.a.description-" + "x" * 60
SCOPES = ("oauth", "crm.objects.contacts.read", "crm.schemas.custom.write", UNKNOWN_SCOPE)

#: Hubs of `fill_troubled`.
REVOKED_HUB, HELD_HUB = 1, 12
FAILING_HUB, DISCONNECTED_HUB, LONG_NAME_HUB, IMPORTED_HUB = 21, 22, 23, 24
LARGEST_HUB = 2**63 - 1

NO_ANSWER = TemporarilyUnavailable("server_error", http_status=502)


def fill_empty(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """No account is connected, and there was no sweep yet."""


def fill_healthy(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """60 accounts, more than a page of the list shows, and six hours of refreshes."""
    for number in range(60):
        hub_id = 62515 + 104_729 * number
        connections.install(hub_id, ago=20 * number % 1000, scopes=SCOPES[:2])
        connections.stores.save_account_info(hub_id, f"shop-{number:02}.example", f"owner@shop-{number:02}.example")
    fill_refresh_history(sql)


def fill_brake_on(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """HubSpot refused twelve refresh tokens: ten are revoked, two held. Two more are active, one is disconnected."""
    for hub_id in range(1, HELD_HUB + 4):
        connections.install(hub_id)
    for hub_id in range(1, HELD_HUB + 1):
        connections.stores.results.save([connections.make_revocation(connections.claim_one(hub_id))])
    disconnect(connections, HELD_HUB + 3)
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now()")


def fill_troubled(connections: ConnectionFixture, sql: SqlFixture) -> None:
    """HubSpot does not answer, the brake is on, and there are connections in every status."""
    fill_brake_on(connections, sql)
    for hub_id in (FAILING_HUB, DISCONNECTED_HUB, LONG_NAME_HUB, LARGEST_HUB):
        connections.install(hub_id, scopes=SCOPES)
        domain, owner, details = f"shop-{hub_id}.example", "owner", None
        if hub_id == LONG_NAME_HUB:
            domain, owner, details = LONG_DOMAIN, "first-name-" * 5, LONG_ACCOUNT
        connections.stores.save_account_info(hub_id, domain, f"{owner}@{domain}", details)
    connections.stores.results.save([connections.make_failure(connections.claim_one(FAILING_HUB), NO_ANSWER)])
    disconnect(connections, DISCONNECTED_HUB)
    connections.stores.imports.import_rows([ImportRow(IMPORTED_HUB, "ciphertext")])
    connections.stores.provider.record_outcomes([CallOutcome(is_first_attempt=True, error=NO_ANSWER)] * 5)
    fill_refresh_history(sql)


def disconnect(connections: ConnectionFixture, hub_id: int) -> None:
    connections.stores.disconnect(hub_id)


def fill_refresh_history(sql: SqlFixture) -> None:
    """The last sweep was a moment ago; refreshes and failures in every minute of the six hours before."""
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now(), last_success_at = now()")
    sql.rows(
        """INSERT INTO tokenkeeper.refreshes_by_minute
           SELECT date_trunc('minute', now()) - make_interval(mins => n), 40 + mod(n, 17), greatest(0, 9 - mod(n, 90))
             FROM generate_series(0, 360) AS n"""
    )


STATES = {"empty": fill_empty, "healthy": fill_healthy, "troubled": fill_troubled}
