"""A web application on fakes, and a browser that visits it."""

from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.fernet import Fernet

from shared.db.core.engine import make_engine
from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.refresh_stats import RefreshStats
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher
from tests.support.builders import grant
from tests.support.fakes import FakeBrake, FakeClock, FakeHubSpot, FakeInstalls, FakeQueue
from web.app import create_app
from web.services import Services

HTTP = "http://localhost:5000/oauth/callback"
HTTPS = "https://connect.example/oauth/callback"
PASSWORD = "a-password-for-tests"
#: Nothing listens there: what needs PostgreSQL is tried with the real one, in tests/integration.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@dataclass
class Site:
    """`visit` is a browser with cookies; `other_browser` has none of them."""

    redirect_uri: str = HTTP
    hubspot: FakeHubSpot = field(default_factory=FakeHubSpot)
    installs: FakeInstalls = field(default_factory=FakeInstalls)
    queue: FakeQueue = field(default_factory=FakeQueue)
    clock: FakeClock = field(default_factory=FakeClock)
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet.generate_key().decode()]))
    checks: dict = field(default_factory=dict)
    trusted_proxies: int = 0

    def __post_init__(self):
        engine = make_engine(NOWHERE)
        services = Services(
            hubspot=self.hubspot,
            cipher=self.cipher,
            installs=self.installs,
            refresh_requests=RefreshRequests(engine),
            disconnects=DisconnectStore(engine),
            provider=ProviderStore(engine),
            brake=FakeBrake(),
            queue=self.queue,
            reports=ConnectionReports(engine),
            connection_list=ConnectionList(engine),
            refresh_stats=RefreshStats(engine),
            schedule=Schedule(),
            clock=self.clock,
            readiness_checks=self.checks,
            secret_key="a-secret-key-for-tests",
            operator_password=PASSWORD,
            redirect_uri=self.redirect_uri,
            hubspot_app_url="https://app.hubspot.com",
            scopes=("oauth", "crm.objects.contacts.read"),
            optional_scopes=("tickets",),
            sweep_seconds=2.0,
            trusted_proxies=self.trusted_proxies,
            double_click_seconds=0.0,
            monotonic_clock=lambda: 0.0,
        )
        self.app = create_app(services)
        self.browser = self.app.test_client()

    def other_browser(self):
        site = replace(self)
        site.app, site.browser = self.app, self.app.test_client()
        return site

    def visit(self, url, **options):
        parts = urlsplit(self.redirect_uri)
        return self.browser.get(url, base_url=f"{parts.scheme}://{parts.netloc}", **options)

    def state(self, url="/install"):
        """Press Connect; the state that HubSpot is given."""
        return parse_qs(urlsplit(self.visit(url).headers["Location"]).query)["state"][0]

    def callback(self, code="the-code", state=None, **grant_values):
        """HubSpot sends the browser back, ready to hand out a grant for the code."""
        self.hubspot.grants.setdefault(code, grant(**grant_values))
        return self.visit("/oauth/callback", query_string={"code": code, "state": state or self.state()})

    def install(self, code="the-code", **grant_values):
        """The whole handshake; the path of the install's page."""
        answer = self.callback(code, **grant_values)
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def work(self):
        """Play the worker: store what is on the queue."""
        from shared.workflows.store_install import store_install

        while self.queue.messages:
            store_install(self.queue.messages.pop(0), self.cipher, self.installs, Schedule())


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def https_site():
    return Site(redirect_uri=HTTPS)


@pytest.fixture
def cookies():
    """The Set-Cookie headers of an answer, by name."""

    def read(answer):
        return {line.split("=")[0]: line for line in answer.headers.getlist("Set-Cookie")}

    return read
