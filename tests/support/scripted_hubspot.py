"""A HubSpot that gives prepared answers, and one refresh of a claimed row against it, without any server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography.fernet import Fernet

from shared.db.core.clock import DatabaseClock
from shared.db.refresh.claims import ClaimedConnection, Lease
from shared.domain.connection import Connection, Status
from shared.domain.errors import ProviderError
from shared.domain.grant import Grant, Introspection
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.builders import HUB, REFRESH_TOKEN, START, grant
from worker.refresh import RefreshAttempt, Refresher

CIPHER = TokenCipher([Fernet.generate_key().decode()])
CALL_TIMEOUT_SECONDS = 20.0


@dataclass
class ScriptedHubSpot:
    """Answers a refresh with `refresh_answer` and an introspection with `introspect_answer`: errors are raised."""

    refresh_answer: Grant | ProviderError = field(default_factory=grant)
    introspect_answer: Introspection | ProviderError = field(default_factory=lambda: Introspection(active=False))
    calls: list[str] = field(default_factory=list)

    def refresh(self, refresh_token: str, clock: Callable[[], datetime]) -> Grant:
        assert refresh_token == REFRESH_TOKEN
        clock()
        self.calls.append("refresh")
        if isinstance(self.refresh_answer, ProviderError):
            raise self.refresh_answer
        return self.refresh_answer

    def introspect(self, token: str, kind: str) -> Introspection:
        assert (token, kind) == (REFRESH_TOKEN, "refresh_token")
        self.calls.append("introspect")
        if isinstance(self.introspect_answer, ProviderError):
            raise self.introspect_answer
        return self.introspect_answer


def make_claimed_row(
    *, lease_seconds: float = 60.0, encrypted_refresh_token: str | None = None, **changes: object
) -> ClaimedConnection:
    """A row claimed at START; `changes` are fields of its connection."""
    fields = {"hub_id": HUB, "status": Status.ACTIVE, "lifetime_seconds": 1800.0, **changes}
    until = START + timedelta(seconds=lease_seconds)
    lease = Lease(HUB, number=3, generation=1, until=until, claimed_status=Status.ACTIVE)
    encrypted = encrypted_refresh_token or CIPHER.encrypt_refresh_token(HUB, REFRESH_TOKEN)
    return ClaimedConnection(Connection(**fields), lease, encrypted)  # type: ignore[arg-type]


def refresh_row(hubspot: ScriptedHubSpot, row: ClaimedConnection, clock: DatabaseClock | None = None) -> RefreshAttempt:
    """Without a `clock`, at START."""
    if clock is None:
        clock = DatabaseClock()
        clock.set(START)
    refresher = Refresher(hubspot, CIPHER, clock, Schedule(), CALL_TIMEOUT_SECONDS)  # type: ignore[arg-type]
    return refresher.refresh(row)
