"""Ends a connection: not served from the first instant, uninstalled and revoked at HubSpot, then wiped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from shared import tracing
from shared.db.operator import Secrets
from shared.db.store import ConnectionStore
from shared.domain.errors import ProviderError
from shared.hubspot.client import HubSpot
from shared.vault import CannotOpen, Vault

log = structlog.get_logger(__name__)


@tracing.traced("disconnect")
def disconnect(hub_id: int, store: ConnectionStore, hubspot: HubSpot, vault: Vault) -> bool:
    """False where there is nothing to disconnect. What HubSpot thinks of it changes nothing here: it is wiped."""
    return _told_and_wiped(hub_id, store.disconnecting(hub_id), store, hubspot, vault)


@tracing.traced("disconnect")
def finish(hub_id: int, store: ConnectionStore, hubspot: HubSpot, vault: Vault) -> bool:
    """The same of one that an operator began to disconnect; no message from the queue begins it."""
    return _told_and_wiped(hub_id, store.disconnect_begun(hub_id), store, hubspot, vault)


def _told_and_wiped(
    hub_id: int, secrets: Secrets | None, store: ConnectionStore, hubspot: HubSpot, vault: Vault
) -> bool:
    tracing.note(hub_id=hub_id)
    if secrets is None:
        return False
    if secrets.access_token is not None:
        _tell(hub_id, "uninstall", partial(hubspot.uninstall, secrets.access_token))
    try:
        refresh_token = vault.open_refresh_token(hub_id, secrets.sealed_refresh_token)
    except CannotOpen as error:
        log.warning("cannot revoke at HubSpot: its refresh token does not open", hub_id=hub_id, why=str(error))
    else:
        _tell(hub_id, "revoke", partial(hubspot.revoke, refresh_token))
    store.wiped(hub_id)
    log.info("disconnected", hub_id=hub_id)
    return True


def _tell(hub_id: int, what: str, call: Callable[[], None]) -> None:
    try:
        call()
    except ProviderError as error:
        said = "HubSpot refused; remove the app in the account by hand"
        log.warning(said, step=what, hub_id=hub_id, why=str(error), **error.evidence())
