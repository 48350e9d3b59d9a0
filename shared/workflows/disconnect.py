"""Disconnects a connection: stops serving its token, ends it at HubSpot, wipes its tokens.

A customer may install the app again meanwhile. HubSpot's calls name the account, and would end the new install, so the
row is read again before each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial

import structlog

from shared import tracing
from shared.db.lifecycle.disconnects import DisconnectStore, DisconnectTokens
from shared.domain.errors import ProviderError
from shared.hubspot.client import HubSpot
from shared.token_cipher import DecryptionError, TokenCipher

log = structlog.get_logger(__name__)


class DisconnectOutcome(StrEnum):
    #: Both tokens are wiped, whatever HubSpot answered.
    DISCONNECTED = "disconnected"
    #: There is no such connection, or its disconnect is finished.
    NOTHING_TO_DO = "nothing_to_do"
    #: It was installed again during the disconnect: the new install stays.
    REINSTALLED = "reinstalled"


@tracing.trace_calls("disconnect")
def disconnect(hub_id: int, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher) -> DisconnectOutcome:
    """Raises StoreUnavailable; errors of HubSpot are only logged."""
    return _disconnect(hub_id, store.mark_and_read_tokens(hub_id), store, hubspot, cipher)


@tracing.trace_calls("disconnect")
def finish_disconnect(hub_id: int, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher) -> DisconnectOutcome:
    """Finish what an operator began. Nothing for any other connection, so that no message alone can end one."""
    return _disconnect(hub_id, store.read_tokens(hub_id), store, hubspot, cipher)


def _disconnect(
    hub_id: int, tokens: DisconnectTokens | None, store: DisconnectStore, hubspot: HubSpot, cipher: TokenCipher
) -> DisconnectOutcome:
    tracing.set_attributes(hub_id=hub_id)
    # 1. Marked by the caller: from then on the token is not served.
    if tokens is None:
        return DisconnectOutcome.NOTHING_TO_DO

    # 2. Uninstall the app at HubSpot, while there is an access token for it.
    if tokens.access_token is not None and store.is_current(hub_id, tokens.generation):
        _call_hubspot(hub_id, "uninstall", partial(hubspot.uninstall, tokens.access_token))

    # 3. Revoke the refresh token at HubSpot.
    try:
        refresh_token = cipher.decrypt_refresh_token(hub_id, tokens.encrypted_refresh_token)
    except DecryptionError as error:
        log.warning("cannot revoke at HubSpot: no key decrypts its refresh token", hub_id=hub_id, why=str(error))
    else:
        if store.is_current(hub_id, tokens.generation):
            _call_hubspot(hub_id, "revoke", partial(hubspot.revoke, refresh_token))

    # 4. Wipe the tokens, whatever HubSpot answered.
    if store.wipe_tokens(hub_id, tokens.generation):
        log.info("disconnected", hub_id=hub_id)
        return DisconnectOutcome.DISCONNECTED
    log.warning("the account installed the app again during its disconnect; the new install stays", hub_id=hub_id)
    return DisconnectOutcome.REINSTALLED


def _call_hubspot(hub_id: int, step: str, call: Callable[[], None]) -> None:
    try:
        call()
    except ProviderError as error:
        message = "HubSpot refused; remove the app in the account by hand"
        log.warning(message, step=step, hub_id=hub_id, why=str(error), **error.evidence())
