"""What the pages work with: handed in by the entry point, so that tests can hand in others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from urllib.parse import urlsplit

from shared.db.activity import Activity
from shared.db.directory import Directory
from shared.db.installs import InstallSeen
from shared.db.operator import Requested
from shared.db.roster import Roster
from shared.domain.grant import Grant, SealedGrant
from shared.domain.provider import Provider
from shared.domain.schedule import Schedule
from shared.install import Adds
from shared.vault import Vault


class Handshake(Protocol):
    """What of HubSpot an install needs: `shared.hubspot.client.HubSpot`."""

    def authorize_url(self, state: str, hub_id: int | None = None) -> str: ...

    def exchange(self, code: str, clock: Callable[[], datetime]) -> Grant:
        """Raises ProviderError."""


class Queue(Protocol):
    """What of the queue the pages need, each raises QueueUnavailable: `shared.dispatch.Dispatch`."""

    def store_install(self, grant: SealedGrant) -> None: ...

    def disconnect(self, hub_id: int) -> None: ...


class Store(Adds, Protocol):
    """What of the store the pages need, each raises StoreUnavailable: `shared.db.store.ConnectionStore`."""

    def installed(self, install_id: str) -> InstallSeen | None: ...

    def provider(self) -> Provider: ...

    def request(self, hub_ids: Sequence[int]) -> dict[int, Requested]: ...

    def begin_disconnect(self, hub_id: int) -> bool: ...

    def confirm_revocations(self) -> int | None: ...

    def dismiss_revocations(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Services:
    hubspot: Handshake
    vault: Vault
    store: Store
    queue: Queue
    roster: Roster
    directory: Directory
    activity: Activity
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
