"""What the pages need from outside: the entry point passes it in, tests pass fakes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.lifecycle.single_uses import SingleUses
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.history_lines import HistoryReader
from shared.db.reports.refresh_stats import RefreshStats
from shared.db.reports.scopes import ScopeReports
from shared.dispatch import Dispatch
from shared.domain.identity import DEFAULT_APP
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.settings.hubspot_app import HubSpotApp
from shared.token_cipher import TokenCipher


@dataclass(frozen=True, slots=True)
class Services:
    #: By the name of the app, as in `apps`.
    hubspot_clients: Mapping[str, HubSpot]
    apps: Mapping[str, HubSpotApp]
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
    history: HistoryReader
    scope_reports: ScopeReports
    schedule: Schedule
    #: This host's wall clock. It dates a grant only where PostgreSQL has never answered this process.
    clock: Callable[[], datetime]
    #: The checks of /readyz by name; each raises NotReady.
    readiness_checks: Mapping[str, Callable[[], None]]
    secret_key: str = field(repr=False)
    operator_password: str = field(repr=False)
    metrics_password: str = field(repr=False)
    hubspot_app_url: str
    single_uses: SingleUses
    #: Keys that sign connect links, newest first; without one there are no links.
    connect_link_keys: tuple[str, ...] = field(repr=False)
    #: No install begins without a link, but from HubSpot's Marketplace.
    is_link_required: bool
    #: Where links may lead at the end.
    return_to_origins: tuple[str, ...]
    #: Patterns of hosts that HubSpot's returnUrl may have.
    marketplace_return_hosts: tuple[str, ...]
    #: Seconds from one sweep to the next.
    sweep_seconds: float
    #: Proxies in front of web; each appends the address of its client to X-Forwarded-For.
    trusted_proxies: int = 0
    #: Seconds to look for the install of a code that HubSpot calls used: a double click sends it twice.
    double_click_seconds: float = 1.0
    #: Limit for all checks of /readyz together; None: the usual one.
    readiness_seconds: float | None = None
    #: Seconds of a clock that is never set, for rate limits.
    monotonic_clock: Callable[[], float] = time.monotonic

    @property
    def default_app(self) -> HubSpotApp | None:
        """The app of who names none; None where there are several, and none is called `default`."""
        only = next(iter(self.apps.values())) if len(self.apps) == 1 else None
        return only or self.apps.get(DEFAULT_APP)

    def app_parameter(self, name: str) -> str | None:
        """What a link to the beginning of a handshake says of the app: nothing where there is one."""
        return name if len(self.apps) > 1 else None

    @property
    def origin(self) -> str:
        """Scheme, host and port under which browsers reach this site; where apps differ in it, the first one's."""
        return self._first_app.origin

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(app.origin for app in self.apps.values()))

    @property
    def hosts(self) -> tuple[str, ...]:
        """As browsers name them in an Origin header."""
        return tuple(dict.fromkeys(app.host for app in self.apps.values()))

    @property
    def is_https(self) -> bool:
        """Of all apps: the settings have seen to it."""
        return self._first_app.is_https

    @property
    def path_prefix(self) -> str:
        """Of all apps: the path below which everything is served."""
        return self._first_app.path_prefix

    @property
    def _first_app(self) -> HubSpotApp:
        return next(iter(self.apps.values()))
