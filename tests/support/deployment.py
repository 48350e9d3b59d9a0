"""A running product with its HubSpot simulator and its database, as tests of whole processes use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import requests

from sandbox.child_processes import ChildProcess
from sandbox.simulator.control import SimulatorControl, TokenCheck
from tests.support.databases import Databases
from tests.support.environment import SHORT_WAITS, product_environment
from tests.support.polling import until
from tests.support.product import Product, has_printed, url_responds
from tests.support.stores import SqlFixture

READY_CHECKS = {"web": url_responds("/healthz"), "worker": has_printed(" ready."), "beat": has_printed("is starting")}


class Deployment:
    """`sql` is a superuser's connection. `hub` is the account of the test: methods use it where none is given."""

    def __init__(self, product: Product, simulator: SimulatorControl, sql: SqlFixture, hub: int = 62515) -> None:
        self.product = product
        self.simulator = simulator
        self.sql = sql
        self.hub = hub

    def start(self, *, workers: int = 1, beats: int = 1, web: bool = True, **settings: str) -> Deployment:
        """Starts all processes at the same time, and waits until each is ready."""
        processes = [self.product.web(wait=False, **settings)] if web else []
        processes += [self.product.worker(wait=False, **settings) for _ in range(workers)]
        processes += [self.product.beat(wait=False, **settings) for _ in range(beats)]
        for process in processes:
            process.wait_until(next(check for name, check in READY_CHECKS.items() if process.name.startswith(name)))
        return self

    def processes_named(self, name: str) -> list[ChildProcess]:
        return [process for process in self.product.running if process.name.startswith(name)]

    def install(self, hub_id: int | None = None) -> requests.Response:
        """The handshake as a browser does it. Returns the answer to the callback, with its redirect not followed."""
        with requests.Session() as browser:
            redirect = browser.get(f"{self.url}/install", allow_redirects=False, timeout=60)
            callback_url = self.simulator.allow(redirect.headers["location"], hub_id or self.hub)
            return browser.get(callback_url, allow_redirects=False, timeout=60)

    def connect(self, hub_id: int | None = None) -> str:
        """Install the account, and wait for its first token."""
        assert self.install(hub_id).status_code == 303
        return until(lambda: self.token(hub_id)) or ""

    def import_accounts(self, count: int, first: int) -> dict[int, str]:
        """Import new accounts, whose tokens are due at once: their refresh tokens. Returns before they have tokens."""
        refresh_tokens = self.simulator.install_many(count, first)
        lines = "".join(f"{hub_id},{token}\n" for hub_id, token in refresh_tokens.items())
        result = self.product.tokenkeeper("import", "-", stdin=f"hub_id,refresh_token\n{lines}")
        assert result.returncode == 0, result.stderr
        return refresh_tokens

    @property
    def url(self) -> str:
        parts = urlsplit(self.product.environment["HUBSPOT_REDIRECT_URI"])
        return f"{parts.scheme}://{parts.netloc}"

    def token(self, hub_id: int | None = None) -> str | None:
        return self.sql.read_served_token(hub_id or self.hub)

    def tokens(self) -> dict[int, str]:
        return dict(self.sql.rows("SELECT hub_id, access_token FROM hubspot.tokens"))  # type: ignore[arg-type]

    def status(self, hub_id: int | None = None) -> str | None:
        rows = self.sql.rows("SELECT status FROM hubspot.connections WHERE hub_id = %s", hub_id or self.hub)
        return rows[0][0] if rows else None

    def make_due(self, *hub_ids: int) -> dict[int, str]:
        """Let a refresh of these accounts be due now. Returns the tokens that they have."""
        listed = list(hub_ids or self.default_hub_ids())
        before = self.tokens()
        self.sql.rows("UPDATE tokenkeeper.connections SET due_at = now() WHERE hub_id = ANY(%s)", listed)
        return {hub_id: before.get(hub_id, "") for hub_id in listed}

    def default_hub_ids(self) -> list[int]:
        return [self.hub]

    def are_live(self, *tokens: str) -> bool:
        """Whether HubSpot accepts every one of them now."""
        checks: list[TokenCheck] = self.simulator.check_tokens(list(tokens))
        return all(check.is_live for check in checks)

    def row(self) -> dict[str, Any]:
        return self.sql.row(self.hub)

    def events(self) -> list[str]:
        return self.sql.events(self.hub)

    def is_refreshing(self) -> bool:
        """Whether a refresh of the test's account is in flight at HubSpot."""
        by_hub: dict[str, dict[str, int]] = self.simulator.get_stats()["by_hub"]
        return by_hub.get(str(self.hub), {}).get("in_flight", 0) == 1

    def never_refreshed_twice_at_once(self) -> bool:
        stats: dict[str, Any] = self.simulator.get_stats()
        return bool(stats["violations"] == 0 and stats["most_refreshes_of_one_hub"] <= 1)


@contextmanager
def start_deployment(databases: Databases, redis_url: str, simulator_url: str, logs: Path) -> Iterator[Deployment]:
    """Web, worker and beat on a database of their own; the output of each goes to a file in `logs`."""
    with databases.create_migrated() as database_url, SimulatorControl(simulator_url) as simulator:
        simulator.reset(settings=True, accounts=True)
        environment = product_environment(
            databases.as_worker(database_url),
            redis_url,
            simulator.base_url,
            WEB_DATABASE_URL=databases.as_web(database_url),
            **SHORT_WAITS,
        )
        product = Product(environment, logs)
        connection = psycopg2.connect(database_url)
        connection.autocommit = True
        try:
            yield Deployment(product, simulator, SqlFixture(connection)).start()
        finally:
            product.stop()
            connection.close()
