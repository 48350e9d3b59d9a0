"""The expected state of one connection, from which every operation starts. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from shared.domain.connection import EventName, Status
from shared.domain.identity import ConnectionIdentity
from tests.model.brake_model import BrakeModel
from tests.model.time_range import TimeRange

LEASE_SECONDS = 60.0
#: A disconnect that takes longer is finished by another process.
UNFINISHED_SECONDS = 60.0
LIVE = (Status.ACTIVE, Status.SUSPECT)


@dataclass(frozen=True, slots=True)
class AccessToken:
    token: str
    granted: TimeRange
    life: float

    def expires(self) -> TimeRange:
        return self.granted.plus(self.life)

    def is_valid(self, at: TimeRange) -> bool:
        return self.expires().earliest > at.latest


@dataclass(frozen=True, slots=True, eq=False)
class ModelLease:
    """A claim of the row, with `generation`, `operator_decisions` and `dismissals` as they were then."""

    identity: ConnectionIdentity
    number: int
    until: TimeRange
    generation: int
    operator_decisions: int
    dismissals: int


@dataclass(slots=True)
class ConnectionState:
    identity: ConnectionIdentity
    notifications: list[tuple[ConnectionIdentity, EventName]]  #: sent by NOTIFY, for all connections
    brake: BrakeModel  #: of its app
    status: Status | None = None
    status_since: TimeRange | None = None
    refresh_token: str | None = None
    access: AccessToken | None = None
    life: float | None = None
    scopes: tuple[str, ...] = ()
    failures: int = 0
    due: TimeRange | None = None
    not_before: TimeRange | None = None
    refresh_requested: bool = False
    requested_refresh_at: TimeRange | None = None  #: newest refresh that was requested and brought a token
    held_by_brake: bool = False  #: by the revocation brake
    #: Runs until its time is over; its result can be saved until another worker claims the row.
    lease: ModelLease | None = None
    leases: int = 0  #: number of the newest
    generation: int = 0
    operator_decisions: int = 0  #: decisions on revocations that changed this connection
    installed_at: TimeRange | None = None
    other_refresh_token: str | None = None  #: of the install before a late one, tried before a revocation
    refreshed_at: TimeRange | None = None  #: when the newest access token was granted
    has_worked: bool = False  #: an install or a refresh brought a token
    installs: set[str] = field(default_factory=set)
    events: list[EventName] = field(default_factory=list)

    def list_end_times(self) -> list[TimeRange]:
        """The times at which the result of an operation may change."""
        access = self.access.expires() if self.access else None
        lease = self.lease.until if self.lease else None
        unfinished = self.status_since.plus(UNFINISHED_SECONDS) if self.status_since else None
        return [end for end in (access, lease, unfinished, self.not_before) if end is not None]

    def claimable_at(self) -> datetime | None:
        """When the row can be claimed."""
        lease = self.lease.until if self.lease else None
        return None if self.due is None else self.due.or_later(lease).latest

    def is_leased(self, at: TimeRange) -> bool:
        return self.lease is not None and self.lease.until.earliest > at.latest

    def take_lease(self, at: TimeRange) -> ModelLease:
        self.leases += 1
        until = at.plus(LEASE_SECONDS)
        self.lease = ModelLease(
            self.identity, self.leases, until, self.generation, self.operator_decisions, self.brake.dismissals
        )
        return self.lease

    def invalidate_lease(self) -> None:
        """The lease runs on, but its result is not saved."""
        self.leases += 1
        if self.lease is not None:
            self.lease = replace(self.lease, number=self.leases)

    def release(self, lease: ModelLease) -> None:
        if self.lease is lease:
            self.lease = None

    def next_request_at(self) -> TimeRange | None:
        """A job's request makes it due no earlier: a sixtieth of the lifetime after a requested refresh."""
        return self.requested_refresh_at and self.requested_refresh_at.plus(max(1.0, (self.life or 0.0) / 60))

    def make_due_by(self, at: TimeRange) -> None:
        self.due, self.refresh_requested = at.or_earlier(self.due), True

    def add_event(self, event: EventName, status: Status, at: TimeRange) -> None:
        """Add an event. It is sent by NOTIFY where it changes the status."""
        self.events.append(event)
        if status is not self.status:
            self.status, self.status_since = status, at
            self.notifications.append((self.identity, event))

    def set_scopes(self, scopes: tuple[str, ...] | None) -> None:
        """None: the reply leaves them out, and the stored ones stay."""
        before, self.scopes = self.scopes, self.scopes if scopes is None else scopes
        if before and set(before) != set(self.scopes):
            self.events.append(EventName.SCOPES_CHANGED)
