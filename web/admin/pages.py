"""The operator's pages: the overview, the list of connections, and one of them."""

from __future__ import annotations

from datetime import datetime

from flask import Response, request, url_for

from shared.db.reports.connection_list import BadCursor, Sort
from shared.db.reports.connections import ConnectionRow, Overview
from shared.domain.connection import Status
from shared.net.deadline import deadline
from web.admin import charts, problems
from web.admin.advice import PROVIDER, STATUS, advice
from web.admin.error_descriptions import in_words as error_in_words
from web.admin.health_summary import Seen, summarize_health
from web.admin.history_descriptions import told
from web.admin.list_params import BadQuery, ListParams
from web.admin.view_base import PATIENCE, ViewBase, account
from web.error_pages import AbortWithPage
from web.oauth.scope_descriptions import describe_scopes
from web.services import Services

#: Connections on a page of the list, and lines of a connection's history.
ROWS, LINES = 50, 200


class Pages:
    """`GET /operator`, `GET /connections`, `GET /connections/<hub_id>` and `…/disconnect`."""

    def __init__(self, services: Services, screen: ViewBase) -> None:
        self._services = services
        self._screen = screen

    def overview(self) -> Response:
        with deadline(PATIENCE):
            values = self._overview()
        return self._screen.show("overview.html", **values)

    def connections(self) -> Response:
        try:
            wanted = ListParams.of(request.args)
            with deadline(PATIENCE):
                found = self._listing(wanted)
        except (BadQuery, BadCursor):
            raise AbortWithPage(problems.BAD_QUERY) from None
        return self._screen.show("connections.html", wanted=wanted, sorts=Sort, statuses=Status, **found)

    def connection(self, hub_id: str) -> Response:
        with deadline(PATIENCE):
            values = self._connection(account(hub_id))
        return self._screen.show("connection.html", **values)

    def question(self, hub_id: str) -> Response:
        """Asks before anything is ended."""
        with deadline(PATIENCE):
            seen = self._one(account(hub_id))
        return self._screen.show("disconnect.html", seen=seen)

    def _overview(self) -> dict[str, object]:
        activity = self._services.refresh_stats
        overview, life = self._services.reports.read_overview(), activity.read_lifetimes()
        seen = Seen(overview, activity.count_without_token(), self._services.sweep_seconds)
        return {
            "overview": overview,
            "verdict": summarize_health(seen),
            "stale": seen.stale,
            "chart": charts.refreshes(activity.read_slots()),
            "lives": charts.distribution(life.lives),
            "estimated": life.estimated,
            "statuses": Status,
            "status_in_words": STATUS,
            **_provider(overview),
        }

    def _listing(self, wanted: ListParams) -> dict[str, object]:
        listing = self._services.connection_list.read_page(
            status=wanted.status,
            search=wanted.search,
            sort=wanted.sort,
            after=wanted.after,
            before=wanted.before,
            limit=ROWS,
        )
        now, counts = self._services.reports.read_counts()
        return {"listing": listing, "now": now, "counts": counts, "error_in_words": error_in_words}

    def _connection(self, hub_id: int) -> dict[str, object]:
        seen, now = self._one(hub_id), self._services.reports.read_time()
        return {
            "seen": seen,
            "now": now,
            "scopes": describe_scopes(seen.scopes),
            "history": [(line.at, told(line)) for line in self._services.reports.read_history(hub_id, LINES)],
            "lines": LINES,
            "advice": advice(seen, self._services.provider.read()),
            "install_link": self._services.origin + url_for("start", hub_id=hub_id),
            "error": error_in_words(seen.last_error) if seen.last_error else "",
            "status_in_words": STATUS,
            "served": _served(seen, now),
        }

    def _one(self, hub_id: int) -> ConnectionRow:
        seen = self._services.reports.find(hub_id)
        if seen is None:
            raise AbortWithPage(problems.NO_SUCH_CONNECTION)
        return seen


def _served(seen: ConnectionRow, now: datetime) -> bool:
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
