"""Databases in every state in which a page of ours looks different."""

from __future__ import annotations

from shared.db.imports import ImportRow
from shared.domain.errors import Unwell
from shared.domain.provider import Outcome
from tests.integration.store_rig import Sql, Town

#: A word without a place to break it, as long as a domain may be.
LONG = f"{'really-long-' * 5}.{'subdomain-' * 6}.example"
WORDLESS = "a.scope.that.nobody.has.heard.of-" + "x" * 60
SCOPES = ("oauth", "crm.objects.contacts.read", "crm.schemas.custom.write", WORDLESS)
HELD, FAILING, DISCONNECTED, LONG_NAMED, IMPORTED, REVOKED = 12, 21, 22, 23, 24, 1
BIGGEST = 2**63 - 1


def nobody(town: Town, sql: Sql) -> None:
    """Nothing is connected, and nothing was ever swept."""


def healthy(town: Town, sql: Sql) -> None:
    """Sixty accounts, more than a page of the list shows, and six hours of refreshes."""
    for number in range(60):
        hub_id = 62515 + 104_729 * number
        town.install(hub_id, ago=20 * number % 1000, scopes=SCOPES[:2])
        town.store.identified(hub_id, f"shop-{number:02}.example", f"owner@shop-{number:02}.example")
    busy(sql)


def braked(town: Town, sql: Sql) -> None:
    """The brake holds two of twelve that HubSpot called dead, and two more are well; one was disconnected."""
    for hub_id in range(1, HELD + 4):
        town.install(hub_id)
    for hub_id in range(1, HELD + 1):
        town.store.save([town.revoked(town.claim_one(hub_id))])
    end(town, HELD + 3)
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now()")


def troubled(town: Town, sql: Sql) -> None:
    """HubSpot is down, the brake is on, and each status is there."""
    braked(town, sql)
    for hub_id in (FAILING, DISCONNECTED, LONG_NAMED, BIGGEST):
        town.install(hub_id, scopes=SCOPES)
        town.store.identified(hub_id, f"shop-{hub_id}.example", f"owner@shop-{hub_id}.example")
    town.store.identified(LONG_NAMED, LONG, f"{'first-name-' * 5}@{LONG}")
    town.store.save([town.failed(town.claim_one(FAILING), Unwell("server_error", http_status=502))])
    end(town, DISCONNECTED)
    town.store.import_([ImportRow(IMPORTED, "sealed")])
    town.store.record([Outcome(first=True, error=Unwell("server_error", http_status=502))] * 5)
    busy(sql)


def end(town: Town, hub_id: int) -> None:
    town.store.disconnecting(hub_id)
    town.store.wiped(hub_id)


def busy(sql: Sql) -> None:
    """As if it had been swept a moment ago, and for six hours before."""
    sql.rows("UPDATE tokenkeeper.provider SET swept_at = now(), last_success_at = now()")
    sql.rows(
        """INSERT INTO tokenkeeper.minutes
           SELECT date_trunc('minute', now()) - make_interval(mins => n), 40 + mod(n, 17), greatest(0, 9 - mod(n, 90))
             FROM generate_series(0, 360) AS n"""
    )


STATES = {"nobody": nobody, "healthy": healthy, "troubled": troubled}
