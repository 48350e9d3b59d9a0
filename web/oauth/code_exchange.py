"""Exchanges a code at HubSpot: once, however often a browser sends it, and within the limits of an address."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import structlog
from flask import request

from shared.db.lifecycle.installs import StoredInstall
from shared.domain.errors import CodeRejected, InvalidClient, InvalidGrant, ProviderError, UnknownRefusal
from shared.domain.grant import ExchangedGrant
from web import error_pages
from web.error_pages import AbortWithPage, classify_exchange_error
from web.oauth.exchange_limits import Attempt, ExchangeLimits, ExchangeRefused
from web.oauth.grant_clock import GrantClock
from web.oauth.install_storage import find_install
from web.security.rate_limits import client_network
from web.services import Services

log = structlog.get_logger(__name__)

#: Until the page of a rejected code asks whether another request stored its install, and for how long it asks again.
RECHECK_SECONDS, RECHECKING_SECONDS = 2.0, 15.0
#: Between two queries for the install that the other request of a double click stores.
INSTALL_POLL_SECONDS = 0.1


class CodeExchange:
    """One per process: the limits count what all its requests do."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._grant_clock = GrantClock(services.reports.read_time, services.clock)
        self._limits = ExchangeLimits(services.monotonic_clock, services.double_click_seconds)

    def find_exchanged(self, handshake_id: str, install_id: str) -> int | None:
        """As in ExchangeLimits."""
        return self._limits.find_exchanged(handshake_id, install_id)

    def remember(self, install_id: str, hub_id: int) -> None:
        """As in ExchangeLimits."""
        self._limits.remember(install_id, hub_id)

    def exchange(
        self, app: str, handshake_id: str, install_id: str, code: str, redirect_uri: str | None = None
    ) -> ExchangedGrant | StoredInstall:
        """What HubSpot grants the app for it, or what another process has stored for it. Raises AbortWithPage.

        `redirect_uri` is the address to which HubSpot sent the code; None: the app's.
        """
        with self._admit(handshake_id) as attempt:
            if attempt.seconds_since_rejection is not None:
                stored = find_install(self._services, install_id)
            else:
                try:
                    now, is_host_time = self._grant_clock.now()
                    grant = self._services.hubspot_clients[app].exchange(code, now, redirect_uri)
                    return replace(grant, is_dated_by_host=is_host_time)
                except CodeRejected as refusal:
                    stored = self._wait_for_install(install_id) if attempt.is_trusted else None
                    attempt.is_rejected = stored is None
                    if stored is None:
                        _log_refusal(app, refusal, redirect_uri)
                except ProviderError as refusal:
                    attempt.is_rejected = isinstance(refusal, (InvalidGrant, UnknownRefusal))
                    _log_refusal(app, refusal, redirect_uri)
                    raise classify_exchange_error(refusal) from None
        if stored is not None:
            return stored
        is_recent = (attempt.seconds_since_rejection or 0.0) < RECHECKING_SECONDS
        raise AbortWithPage(error_pages.CODE_REJECTED, refresh_seconds=RECHECK_SECONDS if is_recent else None)

    @contextmanager
    def _admit(self, handshake_id: str) -> Iterator[Attempt]:
        """Raises AbortWithPage, with a page that asks again by itself, where too much is in flight."""
        try:
            with self._limits.admit(client_network(request), handshake_id) as attempt:
                yield attempt
        except ExchangeRefused as refusal:
            page = error_pages.TOO_MANY_CODES if refusal.is_allowance_spent else error_pages.EXCHANGE_WAITS
            raise AbortWithPage(page, refusal.wait_seconds, refresh_seconds=refusal.wait_seconds) from None

    def _wait_for_install(self, install_id: str) -> StoredInstall | None:
        """A double click sends the code twice and shows the second response; the first may have stored the grant."""
        deadline = time.monotonic() + self._services.double_click_seconds
        while (stored := find_install(self._services, install_id)) is None and time.monotonic() < deadline:
            time.sleep(INSTALL_POLL_SECONDS)
        return stored


def _log_refusal(app: str, error: ProviderError, redirect_uri: str | None) -> None:
    """HubSpot's answer, and of the request only the address that has to be the registered one."""
    write = log.error if isinstance(error, InvalidClient) else log.warning
    sent = {} if redirect_uri is None else {"redirect_uri": redirect_uri}
    write("HubSpot granted nothing for a code", app=app, **sent, **error.evidence())
