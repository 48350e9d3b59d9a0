"""Stores one install: the last step of the handshake, whoever takes it, the worker or the web."""

from __future__ import annotations

from typing import Protocol

from shared.db.installs import Added, NewInstall
from shared.domain.grant import SealedGrant
from shared.domain.schedule import Schedule
from shared.vault import CannotOpen, Vault


class Adds(Protocol):
    """What of the store this needs: `shared.db.store.ConnectionStore`."""

    def add(self, install: NewInstall) -> Added:
        """Raises StoreUnavailable."""


def store_install(grant: SealedGrant, vault: Vault, store: Adds, schedule: Schedule) -> Added:
    """Doing it twice, late or out of order is harmless. Raises CannotOpen, StoreUnavailable.

    What travelled is sealed as one install; what is stored is the refresh token alone, sealed to its hub.
    """
    install = vault.open_install(grant.sealed)
    if (install.install_id, install.hub_id) != (grant.install_id, grant.hub_id):
        raise CannotOpen("it was sealed for another install than the message says")
    return store.add(
        NewInstall(
            install_id=install.install_id,
            hub_id=install.hub_id,
            granted_at=install.granted_at,
            sealed_refresh_token=vault.seal_refresh_token(install.hub_id, install.refresh_token),
            due_at=schedule.due_at,
            access_token=install.access_token,
            expires_in=install.expires_in,
            scopes=install.scopes,
        )
    )
