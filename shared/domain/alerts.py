"""Alerts to operators: the kinds, the texts, and how often they are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from shared.domain.backoff import backoff_seconds
from shared.domain.provider import DESCRIPTIONS, Condition

#: The first and the longest wait before an alert is posted again; each wait is double the one before.
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 2.0, 3600.0
#: An alert that could not be posted for so long is dropped.
GIVE_UP_AFTER = timedelta(hours=24)
#: The time over which `pause_seconds` counts alerts of one kind.
RECENT_WINDOW = timedelta(minutes=10)
#: Between the first and the second alert of a kind; doubled with each further one.
FIRST_PAUSE_SECONDS = 10.0
#: A snapshot in PostgreSQL that is older than this is worth an alert.
MAX_SNAPSHOT_AGE = timedelta(minutes=30)
#: Hubs that one alert names; the others are counted.
MAX_NAMED_HUBS = 10
#: Of PostgreSQL's queue of notifications. From half of it on, tokenkeeper sends none.
MAX_QUEUE_USAGE_SHARE = 0.25

Detail = Mapping[str, Any]


class AlertKind(StrEnum):
    """Each kind is sent when it begins and once more, as `recovered`, when it is over.

    The first four, and JOURNAL, are about one app each.
    """

    #: the state of HubSpot as a whole changed; `detail`: state, before, reason, and resumed_by where an operator did it
    PROVIDER = "provider"
    #: HubSpot ended connections; `detail`: count, hubs (the first of them)
    REVOKED = "connection_revoked"
    #: access tokens expire because no refresh works; `detail`: count, hubs (the first of them)
    STALE = "stale_connections"
    #: HubSpot reported more connections as revoked than is plausible; `detail`: held, confirmed or dismissed (counts)
    BRAKE = "revocation_brake"
    #: workers sweep by themselves, because no message of beat comes; `detail`: seconds
    BEAT = "beat_missing"
    #: a snapshot in PostgreSQL stays open; `detail`: seconds, and what holds it: kind, name, user, application
    OLD_SNAPSHOT = "old_snapshot"
    #: a session that listens does not read: soon no change of status is notified; `detail`: percent, and as above
    NOTIFICATION_QUEUE = "notification_queue"
    #: HubSpot's journal of an app is not read any more; `detail`: state, reason
    JOURNAL = "journal_stopped"
    #: our own product does not take events; `detail`: problem (failing, dropped, gone), why, and minutes or count
    EVENTS = "events_webhook"
    #: many connections lost the same scope within an hour; `detail`: scope, count
    SCOPES_LOST = "scopes_lost"


@dataclass(frozen=True, slots=True)
class Alert:
    """One change. The id stays the same for every attempt to post it."""

    id: str
    kind: AlertKind
    at: datetime
    app: str | None = None  #: which one it is about; None: the whole installation
    recovered: bool = False
    subject: str = ""  #: the hub, where the alert is about one
    detail: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0  #: times that it was posted, the current one included
    summarized_count: int = 0  #: earlier changes of this kind that are not posted, because too many were waiting
    names_app: bool = False  #: there are several apps, so the text says which one it is about


def post_retry_seconds(attempts: int) -> float:
    """The wait until the next attempt, after `attempts` (at least 1) that failed."""
    return backoff_seconds(attempts, FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS)


def pause_seconds(recent_alerts: int) -> float:
    """The shortest time between two alerts of a kind, after `recent_alerts` of them within RECENT_WINDOW.

    The first is sent at once. Of a hundred changes in ten minutes six alerts are sent, and each counts what came since
    the one before.
    """
    return FIRST_PAUSE_SECONDS * 2.0 ** min(recent_alerts - 1, 6) if recent_alerts else 0.0


def describe_alert(alert: Alert) -> str:
    """One message for people, with the characters escaped of which Slack would make a link or a mention."""
    text = _DESCRIBE[alert.kind](alert.detail, alert.recovered)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    count = alert.summarized_count
    summarized = f" ({count} changes before it were not sent one by one.)" if count else ""
    about = f" (app {alert.app})" if alert.names_app and alert.app else ""
    return f"tokenkeeper{about}: {escaped}{summarized}"


def _describe_provider(detail: Detail, recovered: bool) -> str:
    if recovered:
        before = ", ".join(str(detail[name]) for name in ("before", "reason") if detail.get(name))
        if operator := detail.get("resumed_by"):
            return f"an operator ({operator}) ended the pause of refreshes (before: {before}). Refreshes resume."
        return f"HubSpot answers again (before: {before}). Refreshes resume."
    reason = detail.get("reason") or "no reason given"
    state = detail.get("state")
    if state not in set(Condition):
        return f"HubSpot is not working normally ({reason})."
    description = DESCRIPTIONS[Condition(state)]
    return f"{description.summary} ({reason}). {description.next_steps}"


def _describe_revoked(detail: Detail, recovered: bool) -> str:
    connections = _list_hubs(detail)
    if recovered:
        return f"no longer revoked (installed again, refreshed or disconnected): {connections}."
    hubs = detail.get("hubs", ())
    is_one = int(detail.get("count", 0)) == 1
    tokens = "Its token is" if is_one else "Their tokens are"
    hub = hubs[0] if is_one and hubs else "HUB"
    return (
        f"HubSpot ended {connections}: a refresh and an introspection both say so. {tokens} not served any "
        f"more. Ask the customer to install the app again. If HubSpot was wrong: tokenkeeper refresh {hub}."
    )


def _describe_stale(detail: Detail, recovered: bool) -> str:
    if recovered:
        return "no connection's token is about to expire any more."
    connections = _list_hubs(detail)
    is_one = int(detail.get("count", 0)) == 1
    tokens = "its token expires soon, or has" if is_one else "their tokens expire soon, or have"
    return f"no refresh works for {connections}: {tokens} expired. See: tokenkeeper status."


def _describe_brake(detail: Detail, recovered: bool) -> str:
    if recovered:
        decision = next((f": {detail[word]} {word}" for word in ("confirmed", "dismissed") if word in detail), "")
        return f"the revocation brake is off again{decision}."
    held = f" {detail['held']} are held so far." if detail.get("held") else ""
    return (
        f"the revocation brake is on: HubSpot reported more connections as revoked than is plausible.{held} Those "
        "connections stay suspect, and their tokens are served until they expire. Decide: tokenkeeper revocations "
        "confirm, or tokenkeeper revocations dismiss."
    )


def _describe_beat(detail: Detail, recovered: bool) -> str:
    if recovered:
        return "beat's messages reach the workers again."
    return (
        f"no message of beat has reached a worker for {detail.get('seconds', 0)} s. The workers sweep without it, so "
        "tokens stay fresh. Start beat, or repair Redis. See: tokenkeeper doctor."
    )


def _describe_old_snapshot(detail: Detail, recovered: bool) -> str:
    if recovered:
        return "the snapshot in PostgreSQL that was open for too long is closed."
    minutes = int(detail.get("seconds", 0)) // 60
    return (
        f"a snapshot in PostgreSQL has been open for {minutes} minutes, held by {describe_holder(detail)}. Tokens stay "
        "fresh, but tables and indexes grow until it is closed. End that transaction, or drop the slot."
    )


def _describe_notification_queue(detail: Detail, recovered: bool) -> str:
    if recovered:
        return "PostgreSQL's queue of notifications is being read again."
    return (
        f"PostgreSQL's queue of notifications is {detail.get('percent', 0)} % full: a session that listens has a "
        f"transaction open. The oldest one is held by {describe_holder(detail)}. From 50 % on, changes of status are "
        "not notified; the views and the history have them all the same. End that transaction."
    )


def _describe_journal(detail: Detail, recovered: bool) -> str:
    if recovered:
        return "HubSpot's journal is read again: an uninstall is noticed within seconds."
    reason = detail.get("reason") or "no reason given"
    return (
        f"HubSpot's journal has not been readable for five minutes ({reason}). No connection is lost: until it is read "
        "again, an uninstall is noticed at the next refresh. See: tokenkeeper doctor."
    )


def _describe_events(detail: Detail, recovered: bool) -> str:
    if recovered:
        return "the receiver of events accepts them again."
    why = f" ({detail['why']})" if detail.get("why") else ""
    if detail.get("problem") == "gone":
        return (
            "the receiver of events answered that it wants no more of them (410 Gone): none is sent. Correct "
            "EVENTS_WEBHOOK_URL, or let the receiver accept them, then: tokenkeeper events resume."
        )
    if detail.get("problem") == "dropped":
        return (
            f"{detail.get('count', 0)} events were not accepted for three days{why} and are not sent any more. Once "
            "the receiver works: tokenkeeper events replay --since ID."
        )
    return (
        f"the receiver of events has accepted none for {detail.get('minutes', 0)} minutes{why}. They are sent again "
        "for three days. See: tokenkeeper doctor."
    )


def _describe_scopes_lost(detail: Detail, recovered: bool) -> str:
    scope = detail.get("scope", "")
    if recovered:
        return f"no more connections lose the scope {scope}."
    return (
        f"{detail.get('count', 0)} connections lost the scope {scope} within an hour: the app's scopes were "
        "changed at HubSpot. See: tokenkeeper scopes."
    )


#: A kind to the function that makes its text of an alert's `detail`, and of whether it is over.
_DESCRIBE: Mapping[AlertKind, Callable[[Detail, bool], str]] = {
    AlertKind.PROVIDER: _describe_provider,
    AlertKind.REVOKED: _describe_revoked,
    AlertKind.STALE: _describe_stale,
    AlertKind.BRAKE: _describe_brake,
    AlertKind.BEAT: _describe_beat,
    AlertKind.OLD_SNAPSHOT: _describe_old_snapshot,
    AlertKind.NOTIFICATION_QUEUE: _describe_notification_queue,
    AlertKind.JOURNAL: _describe_journal,
    AlertKind.EVENTS: _describe_events,
    AlertKind.SCOPES_LOST: _describe_scopes_lost,
}


def describe_holder(holder: Detail) -> str:
    """What keeps a snapshot open, in words: `holder` has kind, name, user and application."""
    if not holder.get("kind"):
        return "an unknown session"
    user = f" of user {holder['user']}" if holder.get("user") else ""
    application = f" ({holder['application']})" if holder.get("application") else ""
    return f"{holder['kind']} {holder.get('name', '')}{user}{application}"


def _list_hubs(detail: Detail) -> str:
    count, hubs = int(detail.get("count", 0)), list(detail.get("hubs", ()))
    names = ", ".join(str(hub) for hub in hubs) + (f", user {detail['user_id']}" if "user_id" in detail else "")
    # Several users of one hub are several connections: fewer hubs than connections are not more hubs.
    more = f" and {count - len(hubs)} more" if count > len(hubs) >= MAX_NAMED_HUBS else ""
    return f"{count} connection{'' if count == 1 else 's'} ({'hub' if len(hubs) == 1 else 'hubs'} {names}{more})"
