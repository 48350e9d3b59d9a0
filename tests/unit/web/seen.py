"""An overview and a connection as the store shows them, with sensible values for all that a test does not speak of."""

from datetime import timedelta

from shared.db.reports.connections import ConnectionRow, Overview
from shared.domain.connection import Status
from shared.domain.provider import Provider
from tests.support.builders import HUB, START


def overview(*, active=3, suspect=0, revoked=0, disconnected=0, **but):
    values = {
        "now": START,
        "counts": dict(zip(Status, (active, suspect, revoked, disconnected), strict=True)),
        "failing": 0,
        "due": 0,
        "soonest_due": START + timedelta(minutes=3),
        "soonest_expiry": START + timedelta(minutes=10),
        "provider": Provider(since=START),
        "swept_at": START - timedelta(seconds=1),
        "last_success_at": START,
        "brake_since": None,
        "held": 0,
    }
    return Overview(**{**values, **but})


def connection(**but):
    values = {
        "hub_id": HUB,
        "status": Status.ACTIVE,
        "hub_domain": "example.com",
        "installed_by": "ann@example.com",
        "scopes": ("oauth",),
        "installed_at": START,
        "expires_at": START + timedelta(minutes=20),
        "next_refresh_at": START + timedelta(minutes=10),
        "failures": 0,
        "last_error": None,
        "status_reason": None,
        "status_since": START,
    }
    return ConnectionRow(**{**values, **but})
