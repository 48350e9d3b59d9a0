"""The web application with fakes for its servers, and a browser that visits it."""

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
from shared.db.reports.history_lines import HistoryReader
from shared.db.reports.refresh_stats import RefreshStats
from shared.db.reports.scopes import ScopeReports
from shared.domain.identity import DEFAULT_APP
from shared.domain.schedule import Schedule
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import TokenCipher
from tests.support.builders import grant
from tests.support.fakes import FakeBrake, FakeClock, FakeInstalls, FakeQueue, FakeSingleUses
from tests.support.hubspot import ScriptedHubSpot
from tests.support.web_application import make_application
from web.security.cookies import shorten_install_id
from web.services import Services

HTTP_REDIRECT_URI = "http://localhost:5000/oauth/callback"
HTTPS_REDIRECT_URI = "https://connect.example/oauth/callback"
PASSWORD = "a-password-for-tests"
#: No server listens there: what needs PostgreSQL is tested in tests/integration.
UNREACHABLE = "postgresql://user@127.0.0.1:1/database"


@dataclass
class Site:
    """`visit` sends requests of one browser, with its cookies; `other_browser` returns one without them."""

    redirect_uri: str = HTTP_REDIRECT_URI
    hubspot: ScriptedHubSpot = field(default_factory=ScriptedHubSpot)
    installs: FakeInstalls = field(default_factory=FakeInstalls)
    queue: FakeQueue = field(default_factory=FakeQueue)
    clock: FakeClock = field(default_factory=FakeClock)
    cipher: TokenCipher = field(default_factory=lambda: TokenCipher([Fernet.generate_key().decode()]))
    checks: dict = field(default_factory=dict)
    trusted_proxies: int = 0
    double_click_seconds: float = 0.0
    readiness_seconds: float = 60.0  #: on a busy machine a check that does nothing may take seconds
    metrics_password: str = PASSWORD
    connect_link_keys: tuple[str, ...] = ()
    is_link_required: bool = False
    return_to_origins: tuple[str, ...] = ()
    single_uses: FakeSingleUses = field(default_factory=FakeSingleUses)
    marketplace_sign_in_url: str = ""
    monotonic: float = 0.0
    #: Several apps, and their clients; {}: one, with `redirect_uri` and `hubspot`.
    apps: dict[str, HubSpotApp] = field(default_factory=dict)
    clients: dict[str, ScriptedHubSpot] = field(default_factory=dict)

    @property
    def default_app(self):
        scopes = ("oauth", "crm.objects.contacts.read")
        return HubSpotApp(
            DEFAULT_APP,
            scopes=scopes,
            optional_scopes=("tickets",),
            conditional_scopes=("e-commerce",),
            redirect_uri=self.redirect_uri,
            marketplace_sign_in_url=self.marketplace_sign_in_url,
        )

    def __post_init__(self):
        engine = make_engine(UNREACHABLE)
        services = Services(
            hubspot_clients=self.clients or {DEFAULT_APP: self.hubspot},
            apps=self.apps or {DEFAULT_APP: self.default_app},
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
            history=HistoryReader(engine),
            scope_reports=ScopeReports(engine),
            schedule=Schedule(),
            clock=self.clock,
            readiness_checks=self.checks,
            secret_key="a-secret-key-for-tests",
            operator_password=PASSWORD,
            metrics_password=self.metrics_password,
            hubspot_app_url="https://app.hubspot.com",
            sweep_seconds=2.0,
            trusted_proxies=self.trusted_proxies,
            double_click_seconds=self.double_click_seconds,
            readiness_seconds=self.readiness_seconds,
            monotonic_clock=lambda: self.monotonic,
            single_uses=self.single_uses,
            connect_link_keys=self.connect_link_keys,
            is_link_required=self.is_link_required,
            return_to_origins=self.return_to_origins,
            marketplace_return_hosts=("app.hubspot.com", "app-*.hubspot.com"),
        )
        self.app = make_application(services)
        self.browser = self.app.test_client()

    def other_browser(self):
        site = replace(self)
        site.app, site.browser = self.app, self.app.test_client()
        return site

    def other_process(self, **changes):
        """Of the same web, with the same browser."""
        site = replace(self, **changes)
        site.browser._cookies = self.browser._cookies
        return site

    def lose_cookies(self):
        """All that a browser does not get where the first of two responses is dropped."""
        for cookie in list(self.browser._cookies.values()):
            if not cookie.key.endswith("tk_browser"):
                self.browser.delete_cookie(cookie.key, domain=cookie.domain, path=cookie.path)

    def visit(self, url, **options):
        parts = urlsplit(self.redirect_uri)
        # Buffered, so that the file of a static page is closed.
        return self.browser.get(url, base_url=f"{parts.scheme}://{parts.netloc}", buffered=True, **options)

    def state(self, url="/install"):
        """Follows the Connect link; the state in the redirect to HubSpot."""
        return parse_qs(urlsplit(self.visit(url).headers["Location"]).query)["state"][0]

    def callback(self, code="the-code", state=None, **grant_values):
        """HubSpot redirects the browser back; the code can be exchanged for a grant with these values."""
        self.hubspot.grants.setdefault(code, grant(**grant_values))
        return self.visit("/oauth/callback", query_string={"code": code, "state": state or self.state()})

    def install(self, code="the-code", **grant_values):
        """The whole handshake; returns the path of the install's page."""
        response = self.callback(code, **grant_values)
        assert response.status_code == 303, response.text
        return response.headers["Location"]

    def cookie_name(self, name, path):
        """The browser's name of the `install` or `grant` cookie of the install with this page."""
        return f"tk_{name}_{shorten_install_id(path.rpartition('/')[2])}"

    def store_queued(self):
        """Stores the queued installs, as the worker does."""
        from shared.workflows.store_install import store_install

        while self.queue.messages:
            clients = self.clients or {DEFAULT_APP: self.hubspot}
            store_install(self.queue.messages.pop(0), self.cipher, self.installs, Schedule(), clients)


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def https_site():
    return Site(redirect_uri=HTTPS_REDIRECT_URI)


@pytest.fixture
def cookies():
    """A function that returns the Set-Cookie headers of a response by the cookie's name."""

    def read(response):
        return {line.split("=")[0]: line for line in response.headers.getlist("Set-Cookie")}

    return read
