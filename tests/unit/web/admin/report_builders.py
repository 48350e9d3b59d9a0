"""An Overview and a ConnectionRow with plausible values, of which a test changes what it is about."""

from datetime import timedelta

from shared.db.reports.connections import ConnectionRow
from shared.db.reports.overview import AppState, Overview
from shared.domain.connection import Status
from shared.domain.identity import DEFAULT_APP
from shared.domain.provider import Provider
from tests.support.builders import HUB, START


def make_overview(*, active=3, suspect=0, revoked=0, disconnected=0, **changes):
    values = {
        "app": DEFAULT_APP,
        "counts": dict(zip(Status, (active, suspect, revoked, disconnected), strict=True)),
        "failing": 0,
        "due": 0,
        "soonest_due": START + timedelta(minutes=3),
        "soonest_expiry": START + timedelta(minutes=10),
        "provider": Provider(since=START),
        "swept_at": START - timedelta(seconds=1),
        "swept_without_beat_since": None,
        "last_success_at": START,
        "brake_since": None,
        "held": 0,
    }
    now = changes.pop("now", START)
    return Overview(now, (AppState(**{**values, **changes}),))


def make_connection_row(**changes):
    values = {
        "id": 1,
        "app": "default",
        "user_id": None,
        "customer": None,
        "missing_scopes": (),
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
        "account_name": "Example Ltd",
        "account_type": "STANDARD",
        "region": "eu1",
    }
    return ConnectionRow(**{**values, **changes})
