"""What became of an order, told once on the page it leads to: a code in its address, a fixed sentence on the page."""

from __future__ import annotations

from enum import StrEnum

from shared.db.refresh.requests import RefreshRequestOutcome


class FlashMessage(StrEnum):
    """The codes; Requested's are the outcomes of “Refresh now”."""

    ASKED = RefreshRequestOutcome.ASKED.value
    IN_FLIGHT = RefreshRequestOutcome.IN_FLIGHT.value
    ALREADY_DUE = RefreshRequestOutcome.ALREADY_DUE.value
    DISCONNECTED = RefreshRequestOutcome.DISCONNECTED.value
    ENDED = "ended"
    ENDED_LATER = "ended_later"
    NOTHING_TO_END = "nothing_to_end"
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"
    NO_BRAKE = "no_brake"


SENTENCES = {
    **{
        FlashMessage(outcome.value): f"{outcome.description[0].upper()}{outcome.description[1:]}."
        for outcome in RefreshRequestOutcome
        if outcome is not RefreshRequestOutcome.UNKNOWN  # answered with the page of an unknown connection
    },
    FlashMessage.ENDED: "Disconnected. Its token is not served any more, and HubSpot is being told.",
    FlashMessage.ENDED_LATER: "Disconnected. Its token is not served any more. Redis does not answer at the moment: "
    "HubSpot will be told within a minute of its return.",
    FlashMessage.NOTHING_TO_END: "It was disconnected before: there is nothing left to end.",
    FlashMessage.CONFIRMED: "The connections that were held are revoked now, and the brake is off.",
    FlashMessage.DISMISSED: "The connections that were held are active and due again, and the brake is off.",
    FlashMessage.NO_BRAKE: "The brake is off: there was nothing to decide.",
}


def sentence(code: str | None) -> str:
    """Empty where there is none: what others write into an address is never shown."""
    try:
        return SENTENCES[FlashMessage(code)] if code else ""
    except ValueError:
        return ""
