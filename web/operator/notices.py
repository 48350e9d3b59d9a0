"""What became of an order, told once on the page it leads to: a code in its address, a fixed sentence on the page."""

from __future__ import annotations

from enum import StrEnum

from shared.db.operator import Requested


class Notice(StrEnum):
    """The codes; Requested's are the outcomes of “Refresh now”."""

    ASKED = Requested.ASKED.value
    IN_FLIGHT = Requested.IN_FLIGHT.value
    ALREADY_DUE = Requested.ALREADY_DUE.value
    DISCONNECTED = Requested.DISCONNECTED.value
    ENDED = "ended"
    ENDED_LATER = "ended_later"
    NOTHING_TO_END = "nothing_to_end"
    CONFIRMED = "confirmed"
    DISMISSED = "dismissed"
    NO_BRAKE = "no_brake"


SENTENCES = {
    Notice.ASKED: "It is due now: the next sweep, seconds away, refreshes it.",
    Notice.IN_FLIGHT: "A refresh of it is under way already.",
    Notice.ALREADY_DUE: "It was due already: the next sweep gets to it, no sooner than HubSpot allows.",
    Notice.DISCONNECTED: "It is disconnected: there is nothing to refresh until it is installed again.",
    Notice.ENDED: "Disconnected. Its token is not served any more, and HubSpot is being told.",
    Notice.ENDED_LATER: "Disconnected. Its token is not served any more. Redis does not answer at the moment: HubSpot "
    "will be told within a minute of its return.",
    Notice.NOTHING_TO_END: "It was disconnected before: there is nothing left to end.",
    Notice.CONFIRMED: "The connections that were held are revoked now, and the brake is off.",
    Notice.DISMISSED: "The connections that were held are active and due again, and the brake is off.",
    Notice.NO_BRAKE: "The brake is off: there was nothing to decide.",
}


def sentence(code: str | None) -> str:
    """Empty where there is none: what others write into an address is never shown."""
    try:
        return SENTENCES[Notice(code)] if code else ""
    except ValueError:
        return ""
