"""What the pages work with: handed in by the entry point, so that tests can hand in others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from shared.db.lifecycle.disconnects import DisconnectStore
from shared.db.lifecycle.installs import InstallStore
from shared.db.refresh.brake import RevocationBrake
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.requests import RefreshRequests
from shared.db.reports.connection_list import ConnectionList
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.refresh_stats import RefreshStats
from shared.domain.grant import EncryptedInstall, Grant
from shared.domain.schedule import Schedule
from shared.token_cipher import TokenCipher


class Handshake(Protocol):
    """What of HubSpot an install needs: `shared.hubspot.client.HubSpot`."""

    def authorize_url(self, state: str, hub_id: int | None = None) -> str: ...

    def exchange(self, code: str, clock: Callable[[], datetime]) -> Grant:
        """Raises ProviderError."""


class Queue(Protocol):
    """What of the queue the pages need, each raises QueueUnavailable: `shared.dispatch.Dispatch`."""

    def store_install(self, grant: EncryptedInstall) -> None: ...

    def disconnect(self, hub_id: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Services:
    hubspot: Handshake
    cipher: TokenCipher
    installs: InstallStore
    refresh_requests: RefreshRequests
    disconnects: DisconnectStore
    provider: ProviderStore
    brake: RevocationBrake
    queue: Queue
    reports: ConnectionReports
    connection_list: ConnectionList
    refresh_stats: RefreshStats
    schedule: Schedule
    #: This host's wall clock: a grant is dated by it, because PostgreSQL may be down just then.
    clock: Callable[[], datetime]
    #: What /readyz asks, by name; each raises where its server is not ready.
    checks: Mapping[str, Callable[[], None]]
    secret_key: str = field(repr=False)
    operator_password: str = field(repr=False)
    redirect_uri: str
    hubspot_app_url: str
    #: What HubSpot is asked for, always and where an account has it.
    scopes: tuple[str, ...]
    optional_scopes: tuple[str, ...]
    #: From one sweep to the next.
    sweep_seconds: float
    #: How many stand in front of us and say in X-Forwarded-For whom they were asked by.
    trusted_proxies: int = 0
    #: Seconds for which a code that HubSpot calls used may turn out to be an install of a moment ago.
    patience: float = 1.0
    #: In seconds, never set: by it an address that asked too often may ask again.
    ticks: Callable[[], float] = time.monotonic

    @property
    def https(self) -> bool:
        return self.redirect_uri.startswith("https://")

    @property
    def origin(self) -> str:
        """Where HubSpot sends people back to: scheme, host and port."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"
