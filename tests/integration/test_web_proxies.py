"""Web below a path behind the proxies of docs/proxies.md: one removes the path, one passes it on, one replaces Host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port
from sandbox.simulator.control import SimulatorControl
from tests.support.databases import Databases
from tests.support.environment import product_environment
from tests.support.product import Product
from tests.support.proxies import PREFIX, PROXIES, Proxy
from web.security.cookies import Cookies
from web.security.csrf import CsrfTokens
from web.security.rate_limits import WRONG_PASSWORD_RATE

HUB = 62515
PROCESSES = 2


class ClientAdapter(HTTPAdapter):
    """A client at another address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: object, **kwargs: object) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **kwargs)


class Client:
    def __init__(self, url: str, address: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("http://", ClientAdapter(address))

    def get(self, path: str, **options: object) -> requests.Response:
        """`path` as the browser sees it, with the prefix."""
        assert path.startswith(PREFIX), path
        address = self.url.removesuffix(PREFIX) + path
        return self.session.get(address, allow_redirects=False, timeout=60, **options)  # type: ignore[arg-type]

    def guess_password(self, claimed_address: str) -> int:
        headers = {"X-Forwarded-For": claimed_address}
        return self.get(f"{PREFIX}/operator", auth=("operator", "a guess"), headers=headers).status_code


@pytest.fixture(scope="module")
def product(
    databases: Databases,
    redis_server: Callable[[int], str],
    simulator_process: ChildProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Product]:
    uri = f"http://localhost:{find_free_port()}{PREFIX}/oauth/callback"
    with databases.create_migrated() as database_url:
        environment = product_environment(
            database_url, redis_server(15), simulator_process.url, HUBSPOT_REDIRECT_URI=uri, TRUSTED_PROXIES="1"
        )
        product = Product(environment, tmp_path_factory.mktemp("web"))
        try:
            product.web()
            yield product
        finally:
            product.stop()


@pytest.fixture(params=PROXIES, ids=lambda proxy: proxy.name)
def url(request: pytest.FixtureRequest, product: Product, tmp_path: Path) -> Iterator[str]:
    proxy: Proxy = request.param
    if proxy.binary is None:
        pytest.skip(f"no {proxy.name} here: apt-get install {proxy.name}")
    with proxy.run(tmp_path, product.running[0].url) as url:
        yield url


def test_web_works_behind_the_proxy(
    url: str, product: Product, simulator: SimulatorControl, request: pytest.FixtureRequest
) -> None:
    # Addresses of this test alone: the counts of the other proxies' tests are still in memory.
    number = [proxy.name for proxy in PROXIES].index(request.node.callspec.id)
    client, other = Client(url, f"127.0.1.{number}"), Client(url, f"127.0.2.{number}")

    # 1. The handshake, by the links of the pages.
    front = client.get(f"{PREFIX}/")
    start = re.search(rf'href="[^"]*({PREFIX}/install)"', front.text)
    assert start
    back = urlsplit(simulator.allow(client.get(start[1]).headers["Location"], HUB))
    answer = client.get(f"{back.path}?{back.query}")
    assert answer.status_code == 303, answer.text
    assert f"Connecting account {HUB}" in client.get(answer.headers["Location"]).text

    # 2. A form of the operator's pages, with the Origin that browsers send for pages with our Referrer-Policy.
    tokens = CsrfTokens(product.environment["SECRET_KEY"], Cookies(is_https=False), lambda: datetime.now(UTC))
    form = {"csrf_token": tokens.issue(client.session.cookies["tk_browser"])}
    decision = client.session.post(
        f"{url}/operator/revocations/dismiss",
        data=form,
        auth=("operator", product.environment["OPERATOR_PASSWORD"]),
        headers={"Origin": "null"},
        allow_redirects=False,
        timeout=60,
    )
    assert decision.status_code == 303, decision.text

    # 3. Limits count the client, whatever address it claims to have.
    guesses = [client.guess_password(f"192.0.2.{n}") for n in range(PROCESSES * WRONG_PASSWORD_RATE.burst + 10)]
    assert 429 in guesses  # the last one may have met the other process, which counts apart
    assert other.guess_password("") == 401
