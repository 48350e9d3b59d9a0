"""How one hub must stand, and how that is told: what every operation in the model starts from and ends in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from shared.domain.connection import EventName, Status
from tests.model.brake_model import BrakeModel
from tests.model.time_range import TimeRange

LEASE_SECONDS = 60.0
#: Seconds that a disconnect may take before somebody else finishes it.
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
    """Somebody's claim to the row; `generation`, `operator_decisions` and `dismissals` are those of that moment."""

    hub_id: int
    number: int
    until: TimeRange
    generation: int
    operator_decisions: int
    dismissals: int


@dataclass(slots=True)
class ConnectionState:
    hub_id: int
    notifications: list[tuple[int, EventName]]  #: what listeners hear, of all hubs
    brake: BrakeModel
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
    held_by_brake: bool = False  #: by the revocation brake
    lease: ModelLease | None = None  #: stands until its time is over; lands until somebody else claims
    leases: int = 0  #: the number of the newest
    generation: int = 0
    operator_decisions: int = 0  #: of operators, on revocations, that moved it
    installed_at: TimeRange | None = None
    refreshed_at: TimeRange | None = None  #: when the newest access token was granted
    has_worked: bool = False  #: HubSpot has handed something out for it to us
    installs: set[str] = field(default_factory=set)
    events: list[EventName] = field(default_factory=list)

    def list_end_times(self) -> list[TimeRange]:
        """When something is over that the next operation may depend on."""
        access = self.access.expires() if self.access else None
        lease = self.lease.until if self.lease else None
        unfinished = self.status_since.plus(UNFINISHED_SECONDS) if self.status_since else None
        return [end for end in (access, lease, unfinished, self.not_before) if end is not None]

    def claimable_at(self) -> datetime | None:
        """When it may be claimed, as things stand."""
        lease = self.lease.until if self.lease else None
        return None if self.due is None else self.due.or_later(lease).latest

    def is_leased(self, at: TimeRange) -> bool:
        return self.lease is not None and self.lease.until.earliest > at.latest

    def take_lease(self, at: TimeRange) -> ModelLease:
        self.leases += 1
        until = at.plus(LEASE_SECONDS)
        self.lease = ModelLease(
            self.hub_id, self.leases, until, self.generation, self.operator_decisions, self.brake.dismissals
        )
        return self.lease

    def fence(self) -> None:
        """Whoever holds it may go on, but what he brings does not land."""
        self.leases += 1
        if self.lease is not None:
            self.lease = replace(self.lease, number=self.leases)

    def release(self, lease: ModelLease) -> None:
        if self.lease is lease:
            self.lease = None

    def make_due_by(self, at: TimeRange) -> None:
        self.due, self.refresh_requested = at.or_earlier(self.due), True

    def add_event(self, event: EventName, status: Status, at: TimeRange) -> None:
        """An event that may change the status; listeners hear of it only where it does."""
        self.events.append(event)
        if status is not self.status:
            self.status, self.status_since = status, at
            self.notifications.append((self.hub_id, event))

    def set_scopes(self, scopes: tuple[str, ...] | None) -> None:
        """What a reply leaves out stays as it was."""
        before, self.scopes = self.scopes, self.scopes if scopes is None else scopes
        if before and set(before) != set(self.scopes):
            self.events.append(EventName.SCOPES_CHANGED)
