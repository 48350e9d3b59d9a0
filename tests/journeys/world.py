"""A whole product, a HubSpot to play against, and a downstream job's view: what journeys are told in."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests

from sandbox.child_processes import ChildProcess
from sandbox.simulator.control import SimulatorControl, TokenCheck
from tests.support.polling import until
from tests.support.product import Product, has_printed, url_responds
from tests.support.stores import SqlFixture

READY = {"web": url_responds("/healthz"), "worker": has_printed(" ready."), "beat": has_printed("is starting")}


class World:
    """`sql` looks with a superuser's eyes; a downstream job sees `token`. `hub` is the test's own account."""

    def __init__(self, product: Product, simulator: SimulatorControl, sql: SqlFixture, hub: int = 62515) -> None:
        self.product = product
        self.simulator = simulator
        self.sql = sql
        self.hub = hub

    def started(self, *, workers: int = 1, beats: int = 1, web: bool = True, **settings: str) -> World:
        """All at once: a process takes seconds to come up."""
        started = [self.product.web(wait=False, **settings)] if web else []
        started += [self.product.worker(wait=False, **settings) for _ in range(workers)]
        started += [self.product.beat(wait=False, **settings) for _ in range(beats)]
        for running in started:
            running.wait_until(next(ready for name, ready in READY.items() if running.name.startswith(name)))
        return self

    def named(self, name: str) -> list[ChildProcess]:
        return [running for running in self.product.running if running.name.startswith(name)]

    def install(self, hub_id: int | None = None) -> requests.Response:
        """Through the browser's eyes: Connect, the consent page, and back. Where the waiting page is, unread."""
        with requests.Session() as browser:
            asked = browser.get(f"{self.home}/install", allow_redirects=False, timeout=30)
            back = self.simulator.allow(asked.headers["location"], hub_id or self.hub)
            return browser.get(back, allow_redirects=False, timeout=30)

    def connected(self, hub_id: int | None = None) -> str:
        """Install it, and wait for its first token."""
        assert self.install(hub_id).status_code == 303
        return until(lambda: self.token(hub_id))

    @property
    def home(self) -> str:
        parts = urlsplit(self.product.environment["HUBSPOT_REDIRECT_URI"])
        return f"{parts.scheme}://{parts.netloc}"

    def token(self, hub_id: int | None = None) -> str | None:
        return self.sql.served(hub_id or self.hub)

    def tokens(self) -> dict[int, str]:
        return dict(self.sql.rows("SELECT hub_id, access_token FROM hubspot.tokens"))  # type: ignore[arg-type]

    def status(self, hub_id: int | None = None) -> str | None:
        found = self.sql.rows("SELECT status FROM hubspot.connections WHERE hub_id = %s", hub_id or self.hub)
        return found[0][0] if found else None

    def due_now(self) -> None:
        self.sql.set("due_at = now()", self.hub)

    def live(self, *tokens: str) -> bool:
        """Whether HubSpot takes every one of them this very moment."""
        checks: list[TokenCheck] = self.simulator.check_tokens(list(tokens))
        return all(check.is_live for check in checks)

    def row(self) -> dict[str, Any]:
        return self.sql.row(self.hub)

    def events(self) -> list[str]:
        return self.sql.events(self.hub)

    def calling(self) -> bool:
        """A refresh of the test's account is under way at HubSpot."""
        by_hub: dict[str, dict[str, int]] = self.simulator.get_stats()["by_hub"]
        return by_hub.get(str(self.hub), {}).get("in_flight", 0) == 1

    def never_two_at_once(self) -> bool:
        stats: dict[str, Any] = self.simulator.get_stats()
        return bool(stats["violations"] == 0 and stats["most_refreshes_of_one_hub"] <= 1)
