"""The operator's pages: the overview, the list of connections, one connection, and the question before a disconnect.

Each method reads what its template in `templates/admin` shows.
"""

from __future__ import annotations

from flask import Response, request, url_for

from shared.db.reports.connection_list import BadCursor, Sort
from shared.db.reports.connections import ConnectionRow
from shared.domain.connection import Status
from shared.domain.provider import DESCRIPTIONS
from shared.domain.scopes import explain_missing
from shared.net.deadline import deadline
from web.admin import charts, error_pages
from web.admin.advice import COUNT_DESCRIPTIONS, STATUS_DESCRIPTIONS, advise
from web.admin.error_descriptions import describe_error
from web.admin.health_summary import HealthFacts, summarize_health
from web.admin.history_descriptions import describe_event
from web.admin.list_params import InvalidListParams, ListParams
from web.admin.view_base import QUERY_SECONDS, ViewBase, WantedConnection
from web.error_pages import AbortWithPage
from web.oauth.scope_descriptions import describe_scopes
from web.services import Services

ROWS_PER_PAGE = 50
#: For the list of connections that lack scopes. Which ones do depends on the settings, so no index has them: where few
#: do, all are read, which took a second and a half of 300,000 on a busy machine.
LACKING_SECONDS = 10.0
MAX_HISTORY_LINES = 200


class Pages:
    """`GET /operator`, `GET /connections`, `GET /connections/<hub_id>` and `…/disconnect`."""

    def __init__(self, services: Services, view: ViewBase) -> None:
        self._services = services
        self._view = view

    def show_overview(self) -> Response:
        reports, stats = self._services.reports, self._services.refresh_stats
        with deadline(QUERY_SECONDS):
            overview = reports.read_overview()
            lifetimes = stats.read_lifetimes()
            without_token = stats.count_without_token()
            slots = stats.read_slots()
        provider = overview.provider
        return self._view.render(
            "overview.html",
            overview=overview,
            health=summarize_health(HealthFacts(overview, without_token, self._services.sweep_seconds)),
            without_token=without_token,
            provider=provider,
            provider_description=DESCRIPTIONS[provider.condition],
            provider_reason=describe_error(provider.reason) if provider.reason else "",
            paused_until=provider.paused_until if provider.is_paused(overview.now) else None,
            chart=charts.build_refresh_chart(slots),
            lifetimes=charts.build_histogram(lifetimes.counts),
            lifetimes_are_estimated=lifetimes.is_estimated,
            statuses=Status,
            count_descriptions=COUNT_DESCRIPTIONS,
        )

    def show_connections(self) -> Response:
        try:
            params = ListParams.parse(request.args)
            with deadline(LACKING_SECONDS if params.is_lacking_scopes else QUERY_SECONDS):
                page = self._services.connection_list.read_page(
                    status=params.status,
                    app=params.app,
                    customer=params.customer,
                    is_lacking_scopes=params.is_lacking_scopes,
                    search=params.search,
                    sort=params.sort,
                    after=params.after,
                    before=params.before,
                    limit=ROWS_PER_PAGE,
                )
                now, counts = self._services.reports.read_counts()
                lacking_scopes = sum(each.lacking for each in self._services.scope_reports.read_counts())
        except (InvalidListParams, BadCursor):
            raise AbortWithPage(error_pages.INVALID_LIST_PARAMS) from None
        return self._view.render(
            "connections.html",
            params=params,
            page=page,
            make_address=self._make_address,
            has_several_apps=len(self._services.apps) > 1,
            now=now,
            counts=counts,
            lacking_scopes=lacking_scopes,
            sorts=Sort,
            statuses=Status,
            describe_error=describe_error,
        )

    def show_connection(self, hub_id: str) -> Response:
        wanted, reports = WantedConnection.parse(hub_id), self._services.reports
        with deadline(QUERY_SECONDS):
            found = wanted.find(reports)
            if len(found) > 1:
                return self._view.render("choose_connection.html", found=found)
            (connection,) = found
            now = reports.read_time()
            history = reports.read_history(
                connection.hub_id, MAX_HISTORY_LINES, app=connection.app, user_id=connection.user_id
            )
            provider = self._services.provider.read()
        has_ended = connection.status in {Status.REVOKED, Status.DISCONNECTED}
        return self._view.render(
            "connection.html",
            connection=connection,
            address=wanted.address,
            has_several_apps=len(self._services.apps) > 1,
            now=now,
            status_descriptions=STATUS_DESCRIPTIONS,
            has_ended=has_ended,
            # The same condition as in the view hubspot.tokens.
            is_served=not has_ended and connection.expires_at is not None and connection.expires_at > now,
            error_description=describe_error(connection.last_error) if connection.last_error else "",
            advice=advise(connection, provider),
            install_link=self._services.origin
            + url_for("start", hub_id=connection.hub_id, app=self._services.app_parameter(connection.app)),
            history=[(line.at, describe_event(line)) for line in history],
            max_history_lines=MAX_HISTORY_LINES,
            scopes=describe_scopes(connection.scopes),
            missing_scopes=[
                (scope, explain_missing(scope, connection.scopes)) for scope in connection.missing_scopes or ()
            ],
        )

    def confirm_disconnect(self, hub_id: str) -> Response:
        """Asks before anything is ended."""
        wanted = WantedConnection.parse(hub_id)
        with deadline(QUERY_SECONDS):
            connection = wanted.find_one(self._services.reports)
        return self._view.render("disconnect.html", connection=connection, address=wanted.address)

    def _make_address(self, connection: ConnectionRow) -> dict[str, object]:
        """No more than tells it apart from all others, where its app is the only one."""
        app = None if list(self._services.apps) == [connection.app] else connection.app
        return {"hub_id": connection.hub_id, "app": app, "user": connection.user_id}
