"""A claimed row, its lease, and what came of it: the values that go from a claim through the calls to a save."""

from __future__ import annotations

from dataclasses import field
from datetime import datetime

from shared.domain.connection import Connection, Status, Transition
from shared.domain.values import immutable


@immutable
class Lease:
    connection_id: int
    number: int
    generation: int
    until: datetime  #: by PostgreSQL's clock; after it another worker may claim the row
    claimed_status: Status  #: status when claimed; an operator's decision may change it before the save
    due_at: datetime | None = None  #: when the row was due


@immutable
class ClaimedConnection:
    connection: Connection
    lease: Lease
    encrypted_refresh_token: str = field(repr=False)


@immutable
class RefreshResult:
    lease: Lease
    transition: Transition
    encrypted_refresh_token: str | None = field(default=None, repr=False)  #: None: HubSpot sent no new one
    called_at: datetime | None = None  #: when the call began that brought it, where it came without an access token

    @property
    def granted_at(self) -> datetime | None:
        """The start of the call that brought tokens: of two refresh tokens the later one is valid."""
        grant = self.transition.grant
        return self.called_at if grant is None else grant.granted_at
