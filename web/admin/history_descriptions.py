"""The history of a connection in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.db.reports.connections import HistoryLine
from shared.domain.connection import EventName
from shared.domain.severity import Severity
from shared.text_format import make_printable
from web.admin import error_descriptions

Detail = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    words: str
    more: str = ""  #: evidence: codes, and what to name to HubSpot's support
    tone: Severity = Severity.GOOD


def told(line: HistoryLine) -> Told:
    """One that we do not know, from a newer version, stands for itself."""
    words = _WORDS.get(line.event)
    found = words(line.detail) if words else Told(line.event.replace("_", " "), tone=Severity.WAIT)
    return Told(make_printable(found.words), make_printable(found.more), found.tone)


def _installed(_detail: Detail) -> Told:
    return Told("Installed")


def _reinstalled(detail: Detail) -> Told:
    return Told(f"Installed again{_was(detail)}")


def _imported(detail: Detail) -> Told:
    return Told(f"Imported{_was(detail)}")


def _scopes_changed(detail: Detail) -> Told:
    before, after = set(_texts(detail.get("before"))), set(_texts(detail.get("after")))
    changes = [
        *(f"added {scope}" for scope in sorted(after - before)),
        *(f"lost {scope}" for scope in sorted(before - after)),
    ]
    return Told("Its scopes changed", ", ".join(changes), Severity.WAIT if before - after else Severity.GOOD)


def _refresh_failed(detail: Detail) -> Told:
    return Told(
        f"A refresh failed: {error_descriptions.in_words(_text(detail, 'code'))}", _evidence(detail), Severity.WAIT
    )


def _recovered(detail: Detail) -> Told:
    if detail.get("dismissed"):
        return Told(f"Active again: an operator dismissed the verdict{_was(detail)}")
    if detail.get("witness"):
        return Told("Alive after all, says the second witness")
    failures = detail.get("failures")
    if not isinstance(failures, int) or failures < 1:
        return Told("Refreshed again")
    return Told(f"Refreshed again after {failures:,} failed attempt{'' if failures == 1 else 's'}")


def _suspected(detail: Detail) -> Told:
    return Told(f"In doubt: {error_descriptions.in_words(_text(detail, 'code'))}", _evidence(detail), Severity.WAIT)


def _revoked(detail: Detail) -> Told:
    refresh = detail.get("refresh")
    more = _evidence(refresh) if isinstance(refresh, dict) else ""
    if detail.get("confirmed"):
        return Told("Revoked: two witnesses said so, and an operator confirmed it", more, Severity.BAD)
    return Told("Revoked: HubSpot refused its refresh token, and its introspection says the same", more, Severity.BAD)


def _disconnected(detail: Detail) -> Told:
    return Told(f"Disconnected by the operator{_was(detail)}", tone=Severity.BAD)


_WORDS: Mapping[str, Callable[[Detail], Told]] = {
    EventName.INSTALLED: _installed,
    EventName.REINSTALLED: _reinstalled,
    EventName.IMPORTED: _imported,
    EventName.SCOPES_CHANGED: _scopes_changed,
    EventName.REFRESH_FAILED: _refresh_failed,
    EventName.RECOVERED: _recovered,
    EventName.SUSPECTED: _suspected,
    EventName.REVOKED: _revoked,
    EventName.DISCONNECTED: _disconnected,
}


def _was(detail: Detail) -> str:
    was = _text(detail, "was")
    return f" (it was {was})" if was else ""


def _evidence(detail: Detail) -> str:
    """What HubSpot's support asks for."""
    named = (("code", "{}"), ("http_status", "HTTP {}"), ("correlation_id", "correlation id {}"))
    return ", ".join(form.format(text) for name, form in named if (text := _text(detail, name)))


def _text(detail: Detail, name: str) -> str:
    value = detail.get(name)
    return "" if value is None else str(value)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
