"""The result of an action, shown once on the page to which it redirects.

The address of that page carries a code; the page shows the fixed text of that code, so that an address from elsewhere
cannot put words on the page.
"""

from __future__ import annotations

from enum import StrEnum

from shared.db.refresh.requests import RefreshRequestOutcome


class FlashMessage(StrEnum):
    """The first four are the outcomes of “Refresh now”."""

    ASKED = RefreshRequestOutcome.ASKED.value
    IN_FLIGHT = RefreshRequestOutcome.IN_FLIGHT.value
    ALREADY_DUE = RefreshRequestOutcome.ALREADY_DUE.value
    DISCONNECTED = RefreshRequestOutcome.DISCONNECTED.value
    DISCONNECT_QUEUED = "ended"
    DISCONNECT_PENDING = "ended_later"
    DISCONNECTED_BEFORE = "nothing_to_end"
    REVOCATIONS_CONFIRMED = "confirmed"
    REVOCATIONS_DISMISSED = "dismissed"
    BRAKE_IS_OFF = "no_brake"


TEXTS = {
    **{
        FlashMessage(outcome.value): f"{outcome.description[0].upper()}{outcome.description[1:]}."
        for outcome in RefreshRequestOutcome
        if outcome is not RefreshRequestOutcome.UNKNOWN  # answered with an error page
    },
    FlashMessage.DISCONNECT_QUEUED: "Disconnected. Its token is no longer served. The app is being uninstalled at "
    "HubSpot.",
    FlashMessage.DISCONNECT_PENDING: "Disconnected. Its token is no longer served. Redis does not answer at the "
    "moment: the app is uninstalled at HubSpot within a minute after Redis is back.",
    FlashMessage.DISCONNECTED_BEFORE: "It was disconnected already. Nothing was changed.",
    FlashMessage.REVOCATIONS_CONFIRMED: "The connections that were held are revoked now, and the brake is off.",
    FlashMessage.REVOCATIONS_DISMISSED: "The connections that were held are active and due again, and the brake is "
    "off.",
    FlashMessage.BRAKE_IS_OFF: "The brake was off already. Nothing was changed.",
}


def find_text(code: str | None) -> str:
    """Empty for no code, and for one that is not a FlashMessage."""
    try:
        return TEXTS[FlashMessage(code)] if code else ""
    except ValueError:
        return ""
