"""Builds domain objects with default values for the fields that a test does not set."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from shared.domain.connection import Connection, Status
from shared.domain.grant import Grant, Install
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HUB = 62515
IDENTITY = ConnectionIdentity(DEFAULT_APP, HUB)
ACCESS_TOKEN = "access-token-of-the-test"
REFRESH_TOKEN = "refresh-token-of-the-test"


def grant(**but: Any) -> Grant:
    values: dict[str, Any] = {
        "access_token": ACCESS_TOKEN,
        "expires_in": 1800,
        "granted_at": START,
        "refresh_token": REFRESH_TOKEN,
        "hub_id": HUB,
        "scopes": ("oauth", "crm.objects.contacts.read"),
    }
    return Grant(**{**values, **but})


def install(**but: Any) -> Install:
    values: dict[str, Any] = {
        "install_id": str(uuid4()),
        "hub_id": HUB,
        "granted_at": START,
        "refresh_token": REFRESH_TOKEN,
        "access_token": ACCESS_TOKEN,
        "expires_in": 1800,
        "scopes": ("oauth", "crm.objects.contacts.read"),
    }
    return Install(**{**values, **but})


def make_connection(**but: Any) -> Connection:
    values: dict[str, Any] = {"connection_id": 17, "identity": IDENTITY, "status": Status.ACTIVE}
    return Connection(**{**values, **but})
