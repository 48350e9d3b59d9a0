"""What a connection is: one grant of one account, or of one of its users, to one HubSpot app."""

from __future__ import annotations

import re
from typing import Any

from shared.domain.values import immutable

APP_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
#: The app that HUBSPOT_CLIENT_ID and its like describe, where there is one.
DEFAULT_APP = "default"


@immutable
class ConnectionIdentity:
    """Unique. `connections.id` is its internal key of one column (docs/adr/0033)."""

    app: str
    hub_id: int
    user_id: int | None = None  #: None: an account-level app

    def log_fields(self) -> dict[str, Any]:
        """For a log line or a span. A log leaves out the app where there is only one (shared/logs.py)."""
        fields: dict[str, Any] = {"app": self.app, "hub_id": self.hub_id}
        return fields if self.user_id is None else {**fields, "user_id": self.user_id}
