"""One refresh of a claimed row against a scripted HubSpot, without any server."""

from __future__ import annotations

from datetime import timedelta

from cryptography.fernet import Fernet

from shared.db.core.clock import DatabaseClock
from shared.db.refresh.leases import ClaimedConnection, Lease
from shared.domain.connection import Status
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.builders import HUB, REFRESH_TOKEN, START, make_connection
from tests.support.hubspot import ScriptedHubSpot
from worker.refresh.refresher import RefreshAttempt, Refresher

CIPHER = TokenCipher([Fernet.generate_key().decode()])
CALL_TIMEOUT_SECONDS = 20.0


def make_claimed_row(
    *, lease_seconds: float = 60.0, encrypted_refresh_token: str | None = None, **changes: object
) -> ClaimedConnection:
    """A row claimed at START; `changes` are fields of its connection."""
    connection = make_connection(**{"lifetime_seconds": 1800.0, **changes})
    until = START + timedelta(seconds=lease_seconds)
    lease = Lease(connection.connection_id, number=3, generation=1, until=until, claimed_status=Status.ACTIVE)
    encrypted = encrypted_refresh_token or CIPHER.encrypt_refresh_token(HUB, REFRESH_TOKEN)
    return ClaimedConnection(connection, lease, encrypted)


def refresh_row(hubspot: ScriptedHubSpot, row: ClaimedConnection, clock: DatabaseClock | None = None) -> RefreshAttempt:
    """Without a `clock`, at START."""
    if clock is None:
        clock = DatabaseClock()
        clock.set(START)
    refresher = Refresher(hubspot, CIPHER, clock, Schedule(), CALL_TIMEOUT_SECONDS)  # type: ignore[arg-type]
    return hubspot.run(refresher.refresh_steps(refresher.decrypt(row)))
