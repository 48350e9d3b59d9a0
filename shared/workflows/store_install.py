"""Stores one install: the last step of the handshake, whoever takes it, the worker or the web."""

from __future__ import annotations

from shared.db.lifecycle.installs import InstallResult, InstallStore, NewInstall
from shared.domain.grant import EncryptedInstall
from shared.domain.schedule import Schedule
from shared.token_cipher import DecryptionError, TokenCipher


def store_install(
    grant: EncryptedInstall, cipher: TokenCipher, installs: InstallStore, schedule: Schedule
) -> InstallResult:
    """Doing it twice, late or out of order is harmless. Raises DecryptionError, StoreUnavailable.

    What travelled is sealed as one install; what is stored is the refresh token alone, sealed to its hub.
    """
    install = cipher.decrypt_install(grant.ciphertext)
    if (install.install_id, install.hub_id) != (grant.install_id, grant.hub_id):
        raise DecryptionError("it was sealed for another install than the message says")
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
        )
    )
