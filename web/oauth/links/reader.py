"""Reads a connect link that a browser brings: a link that is not valid, or spent, ends the request with a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog

from shared.connect_links import ConnectLink, ConnectLinks, LinkExpired, LinkForged, LinkRejected, find_app
from shared.net.deadline import deadline
from shared.settings.hubspot_app import HubSpotApp
from web.error_pages import AbortWithPage, ErrorPage
from web.oauth.grant_clock import GrantClock
from web.oauth.install_storage import DATABASE_ERRORS
from web.oauth.links import error_pages as link_error_pages
from web.services import Services

log = structlog.get_logger(__name__)

#: The person waits for it. Where PostgreSQL does not answer, the link is settled when the install is stored.
LOOKUP_TIMEOUT_SECONDS = 0.9


@dataclass(frozen=True, slots=True)
class ReadLink:
    link: ConnectLink
    app: HubSpotApp


class LinkReader:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._clock = GrantClock(services.reports.read_time, services.clock)
        self._links = ConnectLinks(services.connect_link_keys, services.return_to_origins)

    def read(self, text: str) -> ReadLink:
        """Raises AbortWithPage. Nothing of the link is logged: it names the customer, and may still be used."""
        if not self._links.are_enabled:
            raise AbortWithPage(link_error_pages.LINKS_OFF)
        try:
            link = self._links.read(text, self.read_time)
            app = find_app(link, self._services.apps)
        except LinkRejected as rejected:
            log.warning("a connect link was refused", why=rejected.why)
            raise AbortWithPage(_choose_page(rejected)) from None
        if self.find_use(link.claim.link_id) is not None:
            raise AbortWithPage(link_error_pages.LINK_SPENT)
        return ReadLink(link, app)

    def read_time(self) -> datetime:
        """PostgreSQL's, as far as it answers: the clock of this host may be wrong."""
        return self._clock.now()[0]

    def find_use(self, link_id: str) -> str | None:
        """The install that came by the link; None where there is none, and where PostgreSQL does not answer."""
        try:
            with deadline(LOOKUP_TIMEOUT_SECONDS):
                return self._services.single_uses.find_link_use(link_id)
        except DATABASE_ERRORS:
            return None


def _choose_page(rejected: LinkRejected) -> ErrorPage:
    if isinstance(rejected, LinkExpired):
        return link_error_pages.LINK_EXPIRED
    return link_error_pages.LINK_FORGED if isinstance(rejected, LinkForged) else link_error_pages.LINK_MALFORMED
