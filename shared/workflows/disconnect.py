"""Ends a connection: not served from the first instant, uninstalled and revoked at HubSpot, then wiped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from shared import tracing
from shared.db.lifecycle.disconnects import DisconnectStore, DisconnectTokens
from shared.domain.errors import ProviderError
from shared.hubspot.client import HubSpot
from shared.token_cipher import DecryptionError, TokenCipher

log = structlog.get_logger(__name__)


@tracing.trace_calls("disconnect")
def disconnect(hub_id: int, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher) -> bool:
    """False where there is nothing to disconnect. What HubSpot thinks of it changes nothing here: it is wiped."""
    return _told_and_wiped(hub_id, store.mark_and_read_tokens(hub_id), store, hubspot, cipher)


@tracing.trace_calls("disconnect")
def finish_disconnect(hub_id: int, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher) -> bool:
    """The same of one that an operator began to disconnect; no message from the queue begins it."""
    return _told_and_wiped(hub_id, store.read_tokens(hub_id), store, hubspot, cipher)


def _told_and_wiped(
    hub_id: int, secrets: DisconnectTokens | None, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher
) -> bool:
    tracing.set_attributes(hub_id=hub_id)
    if secrets is None:
        return False
    if secrets.access_token is not None:
        _tell(hub_id, "uninstall", partial(hubspot.uninstall, secrets.access_token))
    try:
        refresh_token = cipher.decrypt_refresh_token(hub_id, secrets.encrypted_refresh_token)
    except DecryptionError as error:
        log.warning("cannot revoke at HubSpot: its refresh token does not open", hub_id=hub_id, why=str(error))
    else:
        _tell(hub_id, "revoke", partial(hubspot.revoke, refresh_token))
    store.wipe_tokens(hub_id)
    log.info("disconnected", hub_id=hub_id)
    return True


def _tell(hub_id: int, what: str, call: Callable[[], None]) -> None:
    try:
        call()
    except ProviderError as error:
        said = "HubSpot refused; remove the app in the account by hand"
        log.warning(said, step=what, hub_id=hub_id, why=str(error), **error.evidence())
