"""Disconnects a connection: stops serving its token, ends it at HubSpot, wipes its tokens.

A customer may install the app again meanwhile. HubSpot's calls name the account, and would end the new install, so the
row is read again before each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial

import structlog

from shared import tracing
from shared.db.lifecycle.disconnects import DisconnectStore, DisconnectTokens
from shared.domain.errors import ProviderError
from shared.domain.identity import ConnectionIdentity
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
def disconnect(
    connection_id: int, store: DisconnectStore, clients: Mapping[str, HubSpot], cipher: TokenCipher
) -> DisconnectOutcome:
    """`clients` by the name of their app. Raises StoreUnavailable; errors of HubSpot are only logged."""
    return _disconnect(connection_id, store.mark_and_read_tokens(connection_id), store, clients, cipher)


@tracing.trace_calls("disconnect")
def finish_disconnect(
    connection_id: int, store: DisconnectStore, clients: Mapping[str, HubSpot], cipher: TokenCipher
) -> DisconnectOutcome:
    """Finish what an operator began. Nothing for any other connection, so that no message alone can end one."""
    return _disconnect(connection_id, store.read_tokens(connection_id), store, clients, cipher)


def _disconnect(
    connection_id: int,
    tokens: DisconnectTokens | None,
    store: DisconnectStore,
    clients: Mapping[str, HubSpot],
    cipher: TokenCipher,
) -> DisconnectOutcome:
    # 1. Marked by the caller: from then on the token is not served.
    if tokens is None:
        return DisconnectOutcome.NOTHING_TO_DO
    identity = tokens.identity
    tracing.set_attributes(**identity.log_fields())

    # 2. End it at HubSpot, which only the app's own client can.
    if (hubspot := clients.get(identity.app)) is None:
        log.warning("cannot end it at HubSpot: the app is in no setting any more", **identity.log_fields())
    else:
        _end_at_hubspot(tokens, hubspot, cipher, partial(store.is_current, connection_id, tokens.generation))

    # 3. Wipe the tokens, whatever HubSpot answered.
    if store.wipe_tokens(connection_id, tokens.generation):
        log.info("disconnected", **identity.log_fields())
        return DisconnectOutcome.DISCONNECTED
    log.warning(
        "the account installed the app again during its disconnect; the new install stays", **identity.log_fields()
    )
    return DisconnectOutcome.REINSTALLED


def _end_at_hubspot(
    tokens: DisconnectTokens, hubspot: HubSpot, cipher: TokenCipher, is_current: Callable[[], bool]
) -> None:
    """`is_current`: whether the connection was not installed again meanwhile. Raises StoreUnavailable."""
    identity = tokens.identity
    # 1. Uninstall the app, while there is an access token for it. Not for one of several users of an account: HubSpot
    #    does not say whether this call would end the others' grants too.
    if tokens.access_token is not None and identity.user_id is None and is_current():
        _call_hubspot(identity, "uninstall", partial(hubspot.uninstall, tokens.access_token))

    # 2. Revoke the refresh token.
    try:
        refresh_token = cipher.decrypt_refresh_token(identity.hub_id, tokens.encrypted_refresh_token)
    except DecryptionError as error:
        why = str(error)
        log.warning("cannot revoke at HubSpot: no key decrypts its refresh token", **identity.log_fields(), why=why)
    else:
        if is_current():
            _call_hubspot(identity, "revoke", partial(hubspot.revoke, refresh_token))


def _call_hubspot(identity: ConnectionIdentity, step: str, call: Callable[[], None]) -> None:
    try:
        call()
    except ProviderError as error:
        message = "HubSpot refused; remove the app in the account by hand"
        log.warning(message, step=step, **identity.log_fields(), why=str(error), **error.evidence())
