"""What a connection is: one grant of one account, or of one of its users, to one HubSpot app."""

from __future__ import annotations

from dataclasses import dataclass

#: The app that HUBSPOT_CLIENT_ID and its like describe, where there is one.
DEFAULT_APP = "default"


@dataclass(frozen=True, slots=True)
class ConnectionIdentity:
    app: str
    hub_id: int
    user_id: int | None = None  #: None for an account-level app
