"""The operator's pages: the overview, the list of connections, and one of them."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import Response, request, url_for

from shared.db.directory import BadCursor, Sort
from shared.db.roster import ConnectionSeen, Overview
from shared.domain.connection import Status
from web.operator import charts, problems
from web.operator.advice import PROVIDER, STATUS, advice
from web.operator.errors import in_words as error_in_words
from web.operator.events import told
from web.operator.query import BadQuery, Wanted
from web.operator.screen import PATIENCE, Screen, account, within
from web.operator.verdict import Seen, verdict
from web.problems import Stopped
from web.scopes import in_words
from web.services import Services

#: Connections on a page of the list, and lines of a connection's history.
ROWS, LINES = 50, 200
#: Without a sweep for so long, and for so many times as long as from one to the next, nobody sweeps any more.
LATE, LATE_SWEEPS = 60.0, 5


class Pages:
    """`GET /operator`, `GET /connections`, `GET /connections/<hub_id>` and `…/disconnect`."""

    def __init__(self, services: Services, screen: Screen) -> None:
        self._services = services
        self._screen = screen
        self._late = timedelta(seconds=max(LATE, LATE_SWEEPS * services.sweep_seconds))

    def overview(self) -> Response:
        return self._screen.show("overview.html", **within(PATIENCE, self._overview))

    def connections(self) -> Response:
        try:
            wanted = Wanted.of(request.args)
            found = within(PATIENCE, lambda: self._listing(wanted))
        except (BadQuery, BadCursor):
            raise Stopped(problems.BAD_QUERY) from None
        return self._screen.show("connections.html", wanted=wanted, sorts=Sort, statuses=Status, **found)

    def connection(self, hub_id: str) -> Response:
        return self._screen.show("connection.html", **within(PATIENCE, lambda: self._connection(account(hub_id))))

    def question(self, hub_id: str) -> Response:
        """Asks before anything is ended."""
        seen = within(PATIENCE, lambda: self._one(account(hub_id)))
        return self._screen.show("disconnect.html", seen=seen)

    def _overview(self) -> dict[str, object]:
        activity = self._services.activity
        overview, life = self._services.roster.overview(), activity.life()
        seen = Seen(overview, activity.stale(), self._late)
        return {
            "overview": overview,
            "verdict": verdict(seen),
            "stale": seen.stale,
            "chart": charts.refreshes(activity.slots()),
            "lives": charts.distribution(life.lives),
            "estimated": life.estimated,
            "statuses": Status,
            "status_in_words": STATUS,
            **_provider(overview),
        }

    def _listing(self, wanted: Wanted) -> dict[str, object]:
        listing = self._services.directory.page(
            status=wanted.status,
            search=wanted.search,
            sort=wanted.sort,
            after=wanted.after,
            before=wanted.before,
            limit=ROWS,
        )
        now, counts = self._services.roster.counts()
        return {"listing": listing, "now": now, "counts": counts, "error_in_words": error_in_words}

    def _connection(self, hub_id: int) -> dict[str, object]:
        seen, now = self._one(hub_id), self._services.roster.now()
        return {
            "seen": seen,
            "now": now,
            "scopes": in_words(seen.scopes),
            "history": [(line.at, told(line)) for line in self._services.roster.history(hub_id, LINES)],
            "lines": LINES,
            "advice": advice(seen, self._services.store.provider()),
            "install_link": self._services.origin + url_for("start", hub_id=hub_id),
            "error": error_in_words(seen.last_error) if seen.last_error else "",
            "status_in_words": STATUS,
            "served": _served(seen, now),
        }

    def _one(self, hub_id: int) -> ConnectionSeen:
        seen = self._services.roster.one(hub_id)
        if seen is None:
            raise Stopped(problems.NO_SUCH_CONNECTION)
        return seen


def _served(seen: ConnectionSeen, now: datetime) -> bool:
    """Whether `hubspot.tokens` shows its token now."""
    live = seen.status in {Status.ACTIVE, Status.SUSPECT}
    return live and seen.expires_at is not None and seen.expires_at > now


def _provider(overview: Overview) -> dict[str, object]:
    provider = overview.provider
    paused = provider.paused_until if provider.paused_until and provider.paused_until > overview.now else None
    return {
        "provider": provider,
        "provider_in_words": PROVIDER[provider.condition],
        "provider_reason": error_in_words(provider.reason) if provider.reason else "",
        "paused_until": paused,
    }
