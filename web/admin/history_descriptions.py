"""The history of a connection in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.db.reports.connections import HistoryLine
from shared.domain.connection import EventName
from shared.domain.severity import Severity
from shared.text_format import make_printable
from web.admin.error_descriptions import describe_error

Detail = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EventDescription:
    text: str
    evidence: str = ""  #: error code, HTTP status and correlation id, or the scopes that changed
    severity: Severity = Severity.GOOD


def describe_event(line: HistoryLine) -> EventDescription:
    """An event that only a newer version knows is described by its name."""
    describe = _DESCRIBE.get(line.event)
    if describe:
        description = describe(line.detail)
    else:
        description = EventDescription(line.event.replace("_", " "), severity=Severity.WAIT)
    return EventDescription(
        make_printable(description.text), make_printable(description.evidence), description.severity
    )


def _describe_installed(_detail: Detail) -> EventDescription:
    return EventDescription("Installed")


def _describe_reinstalled(detail: Detail) -> EventDescription:
    return EventDescription(f"Installed again{_previous_status(detail)}")


def _describe_imported(detail: Detail) -> EventDescription:
    return EventDescription(f"Imported{_previous_status(detail)}")


def _describe_scopes_changed(detail: Detail) -> EventDescription:
    before, after = set(_texts(detail.get("before"))), set(_texts(detail.get("after")))
    changes = [
        *(f"added {scope}" for scope in sorted(after - before)),
        *(f"removed {scope}" for scope in sorted(before - after)),
    ]
    severity = Severity.WAIT if before - after else Severity.GOOD
    return EventDescription("Its scopes changed", ", ".join(changes), severity)


def _describe_refresh_failed(detail: Detail) -> EventDescription:
    text = f"A refresh failed: {describe_error(_text(detail, 'code'))}"
    return EventDescription(text, _evidence(detail), Severity.WAIT)


def _describe_recovered(detail: Detail) -> EventDescription:
    if detail.get("dismissed"):
        return EventDescription(f"Active again: an operator dismissed the revocation{_previous_status(detail)}")
    if detail.get("witness"):
        return EventDescription("Active again: HubSpot's introspection says that its refresh token is valid")
    failures = detail.get("failures")
    if not isinstance(failures, int) or failures < 1:
        return EventDescription("Refreshed again")
    return EventDescription(f"Refreshed again after {failures:,} failed attempt{'' if failures == 1 else 's'}")


def _describe_suspected(detail: Detail) -> EventDescription:
    if witness := _WITNESSES.get(_text(detail, "witness")):
        return EventDescription(f"Suspect: {witness}", _text(detail, "occurred_at"), Severity.WAIT)
    text = f"Suspect: {describe_error(_text(detail, 'code'))}"
    return EventDescription(text, _evidence(detail), Severity.WAIT)


def _describe_revoked(detail: Detail) -> EventDescription:
    refresh = detail.get("refresh")
    evidence = _evidence(refresh) if isinstance(refresh, dict) else ""
    text = "Revoked: HubSpot refused its refresh token, and introspection says that it is not valid"
    if detail.get("confirmed"):
        text += "; an operator confirmed it"
    return EventDescription(text, evidence, Severity.BAD)


def _describe_disconnected(detail: Detail) -> EventDescription:
    return EventDescription(f"Disconnected by the operator{_previous_status(detail)}", severity=Severity.BAD)


def _describe_claimed(detail: Detail) -> EventDescription:  # noqa: ARG001  it has none
    return EventDescription("Claimed by a customer: it had none")


def _describe_claim_refused(detail: Detail) -> EventDescription:
    is_spent = _text(detail, "reason") == "link_spent"
    why = "the connect link was used before" if is_spent else "it belongs to another customer"
    return EventDescription(f"Not claimed: {why}", _text(detail, "customer"), Severity.WAIT)


def _describe_customer_changed(detail: Detail) -> EventDescription:
    change = f"from {_text(detail, 'before') or 'none'} to {_text(detail, 'after') or 'none'}"
    return EventDescription("Its customer changed", change)


_WITNESSES = {
    "journal": "HubSpot reports that the account has uninstalled the app",
    "introspection": "HubSpot's introspection says that its refresh token is not valid",
}
_DESCRIBE: Mapping[str, Callable[[Detail], EventDescription]] = {
    EventName.INSTALLED: _describe_installed,
    EventName.REINSTALLED: _describe_reinstalled,
    EventName.IMPORTED: _describe_imported,
    EventName.SCOPES_CHANGED: _describe_scopes_changed,
    EventName.REFRESH_FAILED: _describe_refresh_failed,
    EventName.RECOVERED: _describe_recovered,
    EventName.SUSPECTED: _describe_suspected,
    EventName.REVOKED: _describe_revoked,
    EventName.DISCONNECTED: _describe_disconnected,
    EventName.CLAIMED: _describe_claimed,
    EventName.CLAIM_REFUSED: _describe_claim_refused,
    EventName.CUSTOMER_CHANGED: _describe_customer_changed,
}


def _previous_status(detail: Detail) -> str:
    status = _text(detail, "was")
    return f" (it was {status})" if status else ""


def _evidence(detail: Detail) -> str:
    """What HubSpot's support asks for."""
    formats = (("code", "{}"), ("http_status", "HTTP {}"), ("correlation_id", "correlation id {}"))
    return ", ".join(form.format(text) for name, form in formats if (text := _text(detail, name)))


def _text(detail: Detail, name: str) -> str:
    value = detail.get(name)
    return "" if value is None else str(value)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
