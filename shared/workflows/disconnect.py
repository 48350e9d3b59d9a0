"""Disconnects a connection: stops serving its token, ends it at HubSpot, wipes its tokens."""

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
    """False where there is nothing to disconnect. Raises StoreUnavailable; errors of HubSpot are only logged."""
    return _disconnect(hub_id, store.mark_and_read_tokens(hub_id), store, hubspot, cipher)


@tracing.trace_calls("disconnect")
def finish_disconnect(hub_id: int, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher) -> bool:
    """Finish what an operator began. False for any other connection, so that no message alone can end one."""
    return _disconnect(hub_id, store.read_tokens(hub_id), store, hubspot, cipher)


def _disconnect(
    hub_id: int, tokens: DisconnectTokens | None, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher
) -> bool:
    tracing.set_attributes(hub_id=hub_id)
    # 1. Marked by the caller: from then on the token is not served.
    if tokens is None:
        return False

    # 2. Uninstall the app at HubSpot, while there is an access token for it.
    if tokens.access_token is not None:
        _call_hubspot(hub_id, "uninstall", partial(hubspot.uninstall, tokens.access_token))

    # 3. Revoke the refresh token at HubSpot.
    try:
        refresh_token = cipher.decrypt_refresh_token(hub_id, tokens.encrypted_refresh_token)
    except DecryptionError as error:
        log.warning("cannot revoke at HubSpot: no key decrypts its refresh token", hub_id=hub_id, why=str(error))
    else:
        _call_hubspot(hub_id, "revoke", partial(hubspot.revoke, refresh_token))

    # 4. Wipe the tokens, whatever HubSpot answered.
    store.wipe_tokens(hub_id)
    log.info("disconnected", hub_id=hub_id)
    return True


def _call_hubspot(hub_id: int, step: str, call: Callable[[], None]) -> None:
    try:
        call()
    except ProviderError as error:
        message = "HubSpot refused; remove the app in the account by hand"
        log.warning(message, step=step, hub_id=hub_id, why=str(error), **error.evidence())
