"""What the pages need from outside: the entry point passes it in, tests pass fakes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.refresh_stats import RefreshStats
from shared.dispatch import Dispatch
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.token_cipher import TokenCipher


@dataclass(frozen=True, slots=True)
class Services:
    hubspot: HubSpot
    cipher: TokenCipher
    installs: InstallStore
    refresh_requests: RefreshRequests
    disconnects: DisconnectStore
    provider: ProviderStore
    brake: RevocationBrake
    queue: Dispatch
    reports: ConnectionReports
    connection_list: ConnectionList
    refresh_stats: RefreshStats
    schedule: Schedule
    #: This host's wall clock. It dates a grant only where PostgreSQL has never answered this process.
    clock: Callable[[], datetime]
    #: The checks of /readyz by name; each raises NotReady.
    readiness_checks: Mapping[str, Callable[[], None]]
    secret_key: str = field(repr=False)
    operator_password: str = field(repr=False)
    metrics_password: str = field(repr=False)
    redirect_uri: str
    hubspot_app_url: str
    #: Required scopes, and optional ones, which HubSpot grants where the account has them.
    scopes: tuple[str, ...]
    optional_scopes: tuple[str, ...]
    #: Seconds from one sweep to the next.
    sweep_seconds: float
    #: Proxies in front of web; each appends the address of its client to X-Forwarded-For.
    trusted_proxies: int = 0
    #: Seconds to look for the install of a code that HubSpot calls used: a double click sends it twice.
    double_click_seconds: float = 1.0
    #: Seconds of a clock that is never set, for rate limits.
    monotonic_clock: Callable[[], float] = time.monotonic

    @property
    def is_https(self) -> bool:
        return self.redirect_uri.startswith("https://")

    @property
    def path_prefix(self) -> str:
        """The path below which everything is served; "" where HUBSPOT_REDIRECT_URI has none before /oauth/callback."""
        return urlsplit(self.redirect_uri).path.partition("/oauth/callback")[0]

    @property
    def host(self) -> str:
        """As browsers name it in an Origin header: without the default port of the scheme."""
        default_port = ":443" if self.is_https else ":80"
        return urlsplit(self.redirect_uri).netloc.removesuffix(default_port)

    @property
    def origin(self) -> str:
        """Scheme, host and port under which browsers reach this site."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"
