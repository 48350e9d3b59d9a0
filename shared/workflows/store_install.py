"""Stores one install, the last step of the handshake: in the worker, or in web where the queue does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import structlog

from shared.db.lifecycle.installs import InstallResult, InstallStore, NewInstall
from shared.domain.errors import InvalidGrant, ProviderError
from shared.domain.grant import EncryptedInstall, Install
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.token_cipher import DecryptionError, TokenCipher

log = structlog.get_logger(__name__)

#: For HubSpot's answer to whose grant it is.
FIND_USER_SECONDS = 2.0


class UserUnknown(Exception):
    """HubSpot has not said yet whose grant it is: the install waits."""


def store_install(
    encrypted: EncryptedInstall,
    cipher: TokenCipher,
    installs: InstallStore,
    schedule: Schedule,
    clients: Mapping[str, HubSpot],
) -> tuple[Install, InstallResult]:
    """May be repeated, late and out of order. Raises DecryptionError, StoreUnavailable, UserUnknown.

    `clients` by the name of their app.
    """
    # 1. Decrypt it, and check that the message around it was not exchanged for another one's.
    install = cipher.decrypt_install(encrypted.ciphertext)
    if (install.install_id, install.hub_id) != (encrypted.install_id, encrypted.hub_id):
        raise DecryptionError("it was encrypted for another install than the message says")

    # 2. Whose is it? Two users of one account are two connections.
    if install.needs_user_id:
        install = replace(install, user_id=_find_user(install, clients), needs_user_id=False)

    # 3. Encrypt the refresh token alone, for its hub, and store it with the access token.
    return install, installs.add(
        NewInstall(
            install_id=install.install_id,
            app=install.app,
            hub_id=install.hub_id,
            user_id=install.user_id,
            granted_at=install.granted_at,
            encrypted_refresh_token=cipher.encrypt_refresh_token(install.hub_id, install.refresh_token),
            due_at=schedule.due_at,
            access_token=install.access_token,
            expires_in=install.expires_in,
            scopes=install.scopes,
            is_dated_by_host=install.is_dated_by_host,
            customer_claim=install.customer_claim,
        )
    )


def _find_user(install: Install, clients: Mapping[str, HubSpot]) -> int | None:
    """Asks about the refresh token: the access token may have expired while the install waited.

    None where HubSpot answers without a user, or calls the grant invalid: it is stored all the same, so that its
    first refresh decides, and it is not lost. Raises UserUnknown.
    """
    client = clients.get(install.app)
    if client is None:
        raise UserUnknown(f"the settings describe no app {install.app}")
    try:
        user_id = client.introspect(install.refresh_token, "refresh_token", FIND_USER_SECONDS).user_id
    except InvalidGrant:
        user_id = None
    except ProviderError as error:
        raise UserUnknown(f"HubSpot has not said whose grant it is: {error}") from None
    if user_id is None:
        log.warning("HubSpot does not say whose grant of a user-level app it is", **install.identity.log_fields())
    return user_id
