"""Stores one install, the last step of the handshake: in the worker, or in web where the queue does not answer."""

from __future__ import annotations

from shared.db.lifecycle.installs import InstallResult, InstallStore, NewInstall
from shared.domain.grant import EncryptedInstall
from shared.domain.schedule import Schedule
from shared.token_cipher import DecryptionError, TokenCipher


def store_install(
    encrypted: EncryptedInstall, cipher: TokenCipher, installs: InstallStore, schedule: Schedule
) -> InstallResult:
    """May be repeated, late and out of order. Raises DecryptionError, StoreUnavailable."""
    # 1. Decrypt it, and check that the message around it was not exchanged for another one's.
    install = cipher.decrypt_install(encrypted.ciphertext)
    if (install.install_id, install.hub_id) != (encrypted.install_id, encrypted.hub_id):
        raise DecryptionError("it was encrypted for another install than the message says")

    # 2. Encrypt the refresh token alone, for its hub, and store it with the access token.
    return installs.add(
        NewInstall(
            install_id=install.install_id,
            hub_id=install.hub_id,
            granted_at=install.granted_at,
            encrypted_refresh_token=cipher.encrypt_refresh_token(install.hub_id, install.refresh_token),
            due_at=schedule.due_at,
            access_token=install.access_token,
            expires_in=install.expires_in,
            scopes=install.scopes,
            is_dated_by_host=install.is_dated_by_host,
        )
    )
