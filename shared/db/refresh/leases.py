"""A claimed row, its lease, and what came of it: the values that go from a claim through the calls to a save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    called_at: datetime | None = None  #: start of the call that brought it; set only where no access token came with it

    @property
    def granted_at(self) -> datetime | None:
        """The start of the call that brought tokens: of two refresh tokens the later one is valid."""
        grant = self.transition.grant
        return self.called_at if grant is None else grant.granted_at


@dataclass(frozen=True, slots=True)
class SaveOutcome:
    """What became of the results given to RefreshResults.save(), by connection id."""

    saved: frozenset[int] = frozenset()
    #: Of those saved: as suspect, because the revocation brake holds their revocation.
    held_by_brake: frozenset[int] = frozenset()
    #: Not saved, but HubSpot had rotated their refresh token, and the new one is kept.
    rescued: frozenset[int] = frozenset()
    #: Not saved yet, because another transaction has locked the row, or the history: to be saved again.
    locked: frozenset[int] = frozenset()
    #: Not saved yet, because PostgreSQL fails at the row, and may not later. The values say why.
    failed: Mapping[int, str] = field(default_factory=dict)
    #: Not saved: PostgreSQL rejects them, and would each time. The values say why.
    rejected: Mapping[int, str] = field(default_factory=dict)

    def __or__(self, other: SaveOutcome) -> SaveOutcome:
        return SaveOutcome(
            self.saved | other.saved,
            self.held_by_brake | other.held_by_brake,
            self.rescued | other.rescued,
            self.locked | other.locked,
            {**self.failed, **other.failed},
            {**self.rejected, **other.rejected},
        )

    def select_saved(self, results: Sequence[RefreshResult]) -> list[RefreshResult]:
        """Those of `results` that were saved."""
        newest = select_newest(results)
        return [result for connection_id, result in newest.items() if connection_id in self.saved]


def select_newest(results: Sequence[RefreshResult]) -> dict[int, RefreshResult]:
    """By connection, the result of its newest lease: where a lease ran out, one process can hold two results of it."""
    return {result.lease.connection_id: result for result in sorted(results, key=lambda result: result.lease.number)}
