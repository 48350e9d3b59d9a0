"""Parses HubSpot's Webhooks Journal: entries, files, subscriptions. No I/O.

HubSpot documents few of the fields, and not all types (docs/uninstalls.md): what is not known is left out, and one odd
entry never costs the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from shared.domain.journal import EntryKind, JournalEntry, JournalFile
from shared.hubspot import response_fields

#: HubSpot's ids of the two events in the life of an app.
EVENT_TYPE_IDS: Mapping[EntryKind, str] = {EntryKind.UNINSTALL: "4-1916193", EntryKind.INSTALL: "4-1909196"}
ACTIONS: Mapping[EntryKind, str] = {EntryKind.UNINSTALL: "APP_UNINSTALL", EntryKind.INSTALL: "APP_INSTALL"}
#: Numbers above it are milliseconds, others seconds since 1970.
MIN_MILLISECONDS = 100_000_000_000
#: HubSpot's are UUIDs, and documented as opaque.
_OFFSET = re.compile(r"[!-~]{1,200}")


def parse_offset(value: Any) -> str | None:
    return value if isinstance(value, str) and _OFFSET.fullmatch(value) else None


def parse_file(body: bytes, current_offset: str | None) -> JournalFile | None:
    """`current_offset` stands in where the file names no offset. None for anything but a file of the journal."""
    answer = response_fields.parse_object(body) or {}
    entries, offset = answer.get("journalEvents"), parse_offset(answer.get("offset")) or current_offset
    if not isinstance(entries, list) or offset is None:
        return None
    published_at = parse_instant(answer.get("publishedAt"))
    parsed = (_parse_entry(entry, published_at) for entry in entries if isinstance(entry, dict))
    return JournalFile(offset, tuple(entry for entry in parsed if entry is not None))


def parse_subscriptions(answer: Mapping[str, Any] | None) -> tuple[frozenset[EntryKind], int | None]:
    """Which of our two subscriptions a list, or one of them, contains; and HubSpot's number of our app."""
    rows = (answer or {}).get("results", [answer])
    subscriptions = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    kinds = frozenset(kind for kind in EntryKind if any(_is_subscription(row, kind) for row in subscriptions))
    app_ids = (response_fields.parse_hub_id(row.get("appId")) for row in subscriptions)
    return kinds, next(filter(None, app_ids), None)


def parse_instant(value: Any) -> datetime | None:
    """Of an ISO date, or of a number of seconds or milliseconds since 1970."""
    try:
        if isinstance(value, str) and not value.isdecimal():
            instant = datetime.fromisoformat(value)
            return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            number = float(value)
            return datetime.fromtimestamp(number / 1000 if number > MIN_MILLISECONDS else number, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _is_subscription(row: Mapping[str, Any], kind: EntryKind) -> bool:
    """HubSpot's page and its specification name different fields for it."""
    actions = row.get("actions")
    is_action = isinstance(actions, list) and ACTIONS[kind] in actions
    return is_action or EVENT_TYPE_IDS[kind] in (row.get("eventTypeId"), row.get("objectTypeId"))


def _parse_entry(entry: Mapping[str, Any], published_at: datetime | None) -> JournalEntry | None:
    """None for an event of another kind, and for one that names no account."""
    kind = _find_kind(entry)
    hub_id = response_fields.parse_hub_id(entry.get("portalId"))
    if kind is None or hub_id is None:
        return None
    properties = entry.get("properties")
    details = properties if isinstance(properties, dict) else {}
    return JournalEntry(
        kind,
        hub_id,
        parse_instant(entry.get("occurredAt")) or published_at,
        user_id=response_fields.parse_hub_id(details.get("hs_user_id")),
        app_id=response_fields.parse_hub_id(details.get("hs_app_id")),
    )


def _find_kind(entry: Mapping[str, Any]) -> EntryKind | None:
    """By its action, else by its type's id."""
    action, type_id = str(entry.get("action", "")).upper(), entry.get("eventTypeId")
    by_action = (kind for kind in EntryKind if ACTIONS[kind] == action)
    by_type = (kind for kind in EntryKind if EVENT_TYPE_IDS[kind] == type_id)
    return next(by_action, None) or next(by_type, None)
