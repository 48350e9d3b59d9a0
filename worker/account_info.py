"""Asks HubSpot about the accounts of new connections: their domain, and who installed the app."""

from __future__ import annotations

import structlog

from shared import tracing
from shared.db.core.errors import StoreError
from shared.db.lifecycle.account_info import AccountInfoStore
from shared.domain.errors import ProviderError
from shared.hubspot.client import HubSpot

log = structlog.get_logger(__name__)

#: Connections of one task: installs come one at a time, and the rest of an import waits for the next sweep.
BATCH_ROWS = 20


def fetch_account_info(store: AccountInfoStore, hubspot: HubSpot) -> None:
    """Introspect new connections' access tokens. What HubSpot does not answer now is asked again later."""
    try:
        for hub_id, access_token in store.claim_missing(BATCH_ROWS):
            _fetch_one(store, hubspot, hub_id, access_token)
    except StoreError as error:
        log.warning("PostgreSQL does not answer; the next sweep asks again", why=str(error))


@tracing.trace_calls("fetch_account_info")
def _fetch_one(store: AccountInfoStore, hubspot: HubSpot, hub_id: int, access_token: str) -> None:
    tracing.set_attributes(hub_id=hub_id)
    try:
        answer = hubspot.introspect(access_token, "access_token")
    except ProviderError as error:
        log.info(
            "HubSpot did not return the account's information; asked again later", hub_id=hub_id, **error.evidence()
        )
        return
    if answer.active:
        store.save(hub_id, answer.hub_domain, answer.user)
