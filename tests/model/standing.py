"""How one hub must stand, and how that is told: what every deed in the book starts from and ends in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from shared.domain.connection import EventName, Status
from tests.model.brakes import BrakeBook
from tests.model.spans import Span

LEASE_SECONDS = 60.0
#: Seconds that a disconnect may take before somebody else finishes it.
UNFINISHED = 60.0
LIVE = (Status.ACTIVE, Status.SUSPECT)


@dataclass(frozen=True, slots=True)
class Access:
    token: str
    granted: Span
    life: float

    def expires(self) -> Span:
        return self.granted.plus(self.life)

    def lives(self, at: Span) -> bool:
        return self.expires().earliest > at.latest


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """Somebody's claim to the row; `generation`, `words` and `dismissals` are those of that moment."""

    hub_id: int
    number: int
    until: Span
    generation: int
    words: int
    dismissals: int


@dataclass(slots=True)
class Standing:
    hub_id: int
    told: list[tuple[int, EventName]]  #: what listeners hear, of all hubs
    brake: BrakeBook
    status: Status | None = None
    status_since: Span | None = None
    refresh_token: str | None = None
    access: Access | None = None
    life: float | None = None
    scopes: tuple[str, ...] = ()
    failures: int = 0
    due: Span | None = None
    not_before: Span | None = None
    requested: bool = False
    held: bool = False  #: by the revocation brake
    holding: Holding | None = None  #: stands until its time is over; lands until somebody else claims
    leases: int = 0  #: the number of the newest
    generation: int = 0
    words: int = 0  #: of operators, on revocations, that moved it
    installed_at: Span | None = None
    refreshed_at: Span | None = None  #: when the newest access token was granted
    proven: bool = False  #: HubSpot has handed something out for it to us
    installs: set[str] = field(default_factory=set)
    events: list[EventName] = field(default_factory=list)

    def ends(self) -> list[Span]:
        """When something is over that the next deed may depend on."""
        access = self.access.expires() if self.access else None
        lease = self.holding.until if self.holding else None
        unfinished = self.status_since.plus(UNFINISHED) if self.status_since else None
        return [end for end in (access, lease, unfinished, self.not_before) if end is not None]

    def ready(self) -> datetime | None:
        """When it may be claimed, as things stand."""
        lease = self.holding.until if self.holding else None
        return None if self.due is None else self.due.or_later(lease).latest

    def is_held_by_somebody(self, at: Span) -> bool:
        return self.holding is not None and self.holding.until.earliest > at.latest

    def claimed(self, at: Span) -> Holding:
        self.leases += 1
        until = at.plus(LEASE_SECONDS)
        self.holding = Holding(self.hub_id, self.leases, until, self.generation, self.words, self.brake.dismissals)
        return self.holding

    def fence(self) -> None:
        """Whoever holds it may go on, but what he brings does not land."""
        self.leases += 1
        if self.holding is not None:
            self.holding = replace(self.holding, number=self.leases)

    def handed_back(self, holding: Holding) -> None:
        if self.holding is holding:
            self.holding = None

    def due_by(self, at: Span) -> None:
        self.due, self.requested = at.or_sooner(self.due), True

    def tell(self, event: EventName, status: Status, at: Span) -> None:
        """An event that may change the status; listeners hear of it only where it does."""
        self.events.append(event)
        if status is not self.status:
            self.status, self.status_since = status, at
            self.told.append((self.hub_id, event))

    def rescoped(self, scopes: tuple[str, ...] | None) -> None:
        """What a reply leaves out stays as it was."""
        before, self.scopes = self.scopes, self.scopes if scopes is None else scopes
        if before and set(before) != set(self.scopes):
            self.events.append(EventName.SCOPES_CHANGED)
