"""Fakes of the stores for tests without a database: a test sets their behaviour and reads their calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.db.core.errors import StoreError, StoreUnavailable
from shared.db.lifecycle.installs import InstallOutcome, InstallResult, NewInstall, StoredInstall
from shared.dispatch import QueueUnavailable
from shared.domain.connection import Status
from shared.domain.grant import EncryptedInstall
from tests.support.builders import START


@dataclass
class FakeClock:
    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def step(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeQueue:
    down: bool = False
    messages: list[EncryptedInstall] = field(default_factory=list)

    def store_install(self, grant: EncryptedInstall) -> None:
        if self.down:
            raise QueueUnavailable("ConnectionError")
        self.messages.append(grant)


@dataclass
class FakeInstalls:
    """Installs in memory; the ordering rules are the real store's and are tested there."""

    down: bool = False
    error: StoreError | None = None  #: raised by every call
    rows: dict[int, NewInstall] = field(default_factory=dict)
    asked: int = 0
    domain: str | None = None
    customers: dict[int, str | None] = field(default_factory=dict)  #: in place of what a link claims
    status: Status = Status.ACTIVE

    def add(self, install: NewInstall) -> InstallResult:
        self._answer()
        already = any(row.install_id == install.install_id for row in self.rows.values())
        if not already:
            self.rows[install.hub_id] = install
        return InstallResult(
            InstallOutcome.ALREADY_STORED if already else InstallOutcome.INSTALLED, needs_account_info=True
        )

    def find(self, install_id: str) -> StoredInstall | None:
        self._answer()
        for row in self.rows.values():
            if row.install_id == install_id:
                claim = row.customer_claim
                customer = self.customers.get(row.hub_id, claim.customer if claim else None)
                return StoredInstall(row.hub_id, self.domain, row.scopes or (), self.status, customer=customer)
        return None

    def is_connected(self, app: str, hub_id: int) -> bool:
        self._answer()
        return hub_id in self.rows

    def _answer(self) -> None:
        self.asked += 1
        if self.down:
            raise StoreUnavailable("PostgreSQL does not answer: connection refused")
        if self.error:
            raise self.error


@dataclass
class FakeSingleUses:
    """What was used, in memory, by kind and id."""

    down: bool = False
    used: dict[tuple[str, str], str] = field(default_factory=dict)

    def find_link_use(self, link_id: str) -> str | None:
        if self.down:
            raise StoreUnavailable("PostgreSQL does not answer: connection refused")
        return self.used.get(("link", link_id))

    def spend_state(self, state_id: str, install_id: str, expires_at: datetime) -> str:
        if self.down:
            raise StoreUnavailable("PostgreSQL does not answer: connection refused")
        return self.used.setdefault(("state", state_id), install_id)


@dataclass
class FakeBrake:
    """A revocation brake that is off."""

    def confirm(self) -> int | None:
        return None

    def dismiss(self) -> int | None:
        return None
