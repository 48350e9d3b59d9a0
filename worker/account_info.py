"""Asks HubSpot whose account a new connection is: its domain, and who installed the app."""

from __future__ import annotations

import structlog

from shared import tracing
from shared.db.core.errors import StoreError
from shared.db.lifecycle.account_info import AccountInfoStore
from shared.domain.errors import ProviderError
from shared.hubspot.client import HubSpot

log = structlog.get_logger(__name__)

#: Connections asked about at one call: installs come one at a time, and an import's may take their time.
BATCH = 20


def identify(store: AccountInfoStore, hubspot: HubSpot) -> None:
    """What HubSpot does not answer now is asked again later: the store keeps what is still owed."""
    try:
        for hub_id, access_token in store.claim_missing(BATCH):
            _identify_one(store, hubspot, hub_id, access_token)
    except StoreError as error:
        log.warning("PostgreSQL does not answer; the next sweep asks again", why=str(error))


@tracing.trace_calls("identify")
def _identify_one(store: AccountInfoStore, hubspot: HubSpot, hub_id: int, access_token: str) -> None:
    tracing.set_attributes(hub_id=hub_id)
    try:
        seen = hubspot.introspect(access_token, "access_token")
    except ProviderError as error:
        log.info("HubSpot did not say whose account it is; asked again later", hub_id=hub_id, **error.evidence())
        return
    if seen.active:
        store.save(hub_id, seen.hub_domain, seen.user)
