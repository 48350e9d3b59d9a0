"""Installs that begin on HubSpot's Marketplace: which address of the app is opened, and whether it came back.

HubSpot opens the app's install URL. Without sign-in: after consent, with `code` and `returnUrl`. With sign-in: first
with `step=authorize` and `returnUrl`, to which the app returns with a `state`; then consent; then with `step=finalize`,
`code`, `state` and `returnUrl`, in a frame. Both end when the browser is back at `returnUrl`.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

from sandbox.simulator.records import Installation
from sandbox.simulator.simulation import Consent, Simulation

FLOWS = ("code", "sign_in", "bare")


class UnknownInstall(Exception):
    """There is no such install, or it is not at the step where a person answers."""


@dataclass(frozen=True, slots=True)
class ReturnVisit:
    """A request of the browser for `returnUrl`."""

    query: dict[str, str]
    fetch_dest: str  #: Sec-Fetch-Dest: iframe, document …
    referrer: str


@dataclass(frozen=True, slots=True)
class MarketplaceInstall:
    id: str
    installation: Installation
    flow: str  #: one of FLOWS; bare: the install URL without any parameter
    install_url: str
    return_url: str
    is_framed: bool  #: the leg that brings the code is opened in a frame
    state: str | None = None  #: of the app, which returned with it
    has_answered: bool = False  #: at the consent page
    visits: tuple[ReturnVisit, ...] = field(default=())

    @property
    def is_complete(self) -> bool:
        """The browser came back to `returnUrl` after it had brought the answer to the app."""
        return len(self.visits) > (self.flow == "sign_in") and self.has_answered

    def make_url(self, **parameters: str | None) -> str:
        """The install URL with these parameters; None: left out."""
        given = {name: value for name, value in parameters.items() if value is not None}
        query = urlencode({**given, "returnUrl": self.return_url}, quote_via=quote, safe="")
        return f"{self.install_url}?{query}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "is_complete": self.is_complete}


class Marketplace:
    """Thread-safe. What it knows is lost when the process ends."""

    def __init__(self, sim: Simulation) -> None:
        self._sim = sim
        self._lock = threading.Lock()
        self._installs: dict[str, MarketplaceInstall] = {}

    def reset(self) -> None:
        with self._lock:
            self._installs.clear()

    def list_installs(self) -> list[MarketplaceInstall]:
        with self._lock:
            return list(self._installs.values())

    def start(
        self,
        installation: Installation,
        *,
        flow: str,
        install_url: str,
        origin: str,
        return_query: str = "",
        is_framed: bool = True,
    ) -> tuple[MarketplaceInstall, str]:
        """A new install, and the URL that the browser opens first. `origin`: of this simulator, for `returnUrl`."""
        number = uuid.uuid4().hex
        return_url = f"{origin}/marketplace/return/{number}" + (f"?{return_query}" if return_query else "")
        install = MarketplaceInstall(number, installation, flow, install_url, return_url, is_framed)
        if flow == "code":
            install = replace(install, has_answered=True)
        with self._lock:
            self._installs[number] = install
        if flow == "bare":
            return install, install_url
        url = install.make_url(code=self._issue_code(install)) if flow == "code" else install.make_url(step="authorize")
        return install, url

    def add_visit(self, install_id: str, visit: ReturnVisit) -> MarketplaceInstall:
        """Raises UnknownInstall."""
        with self._lock:
            install = self._find(install_id)
            state = install.state or visit.query.get("state")
            install = replace(install, state=state, visits=(*install.visits, visit))
            self._installs[install_id] = install
        return install

    def answer(self, install_id: str, *, is_allowed: bool) -> str:
        """The URL of the last leg, after the person's answer. Raises UnknownInstall."""
        with self._lock:
            install = self._find(install_id)
            if install.flow != "sign_in" or install.state is None:
                raise UnknownInstall(install_id)
            self._installs[install_id] = replace(install, has_answered=True)
        if not is_allowed:
            return install.make_url(step="finalize", error="access_denied", state=install.state)
        return install.make_url(step="finalize", code=self._issue_code(install), state=install.state)

    def _find(self, install_id: str) -> MarketplaceInstall:
        if install_id not in self._installs:
            raise UnknownInstall(install_id)
        return self._installs[install_id]

    def _issue_code(self, install: MarketplaceInstall) -> str:
        """Bound to the install URL where that is a registered redirect URI, else to the first of those."""
        installation = install.installation
        registered = self._sim.behaviour.find(installation.client_id).redirect_uris
        redirect_uri = registered[0] if registered and install.install_url not in registered else install.install_url
        scopes = self._sim.get_default_scopes(installation.client_id)
        consent = Consent(installation.client_id, redirect_uri, scopes, installation.user_id)
        return self._sim.issue_code(installation.hub_id, consent)
