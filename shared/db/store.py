"""What web, worker and command change: one method each, the SQL and its reasons in the modules beside it.

Every method raises StoreUnavailable where PostgreSQL does not answer, or not now. Then nothing of it was stored,
or its answer was lost; either way the same call may be made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Engine

from shared.db import (
    brake,
    counting,
    identity,
    imports,
    installs,
    key_check,
    leases,
    operator,
    provider,
    pruning,
    saves,
)
from shared.db.brake import Brake
from shared.db.clock import DatabaseClock
from shared.db.database import Database
from shared.db.imports import Imported, ImportRow, Standing
from shared.db.installs import Added, InstallSeen, NewInstall
from shared.db.leases import Claims, Lease, Result
from shared.db.operator import Requested, Secrets
from shared.db.saves import Landed
from shared.domain.counts import Counts
from shared.domain.provider import Outcome, Provider


class ConnectionStore:
    """`clock` is set by every claim and every sweep, and by `sync`."""

    def __init__(self, engine: Engine, *, lease_seconds: float, max_refreshes_per_second: float = 0.0) -> None:
        """`max_refreshes_per_second` counts over all workers; 0: no cap."""
        self.clock = DatabaseClock()
        self._database = Database(engine)
        self._lease_seconds = lease_seconds
        self._cap = max_refreshes_per_second

    # --- installs and imports ---

    def add(self, install: NewInstall) -> Added:
        """Store an install, unless it is stored already, or something newer is."""
        return installs.add(self._database, install)

    def installed(self, install_id: str) -> InstallSeen | None:
        return installs.installed(self._database, install_id)

    def import_(self, rows: Sequence[ImportRow]) -> Imported:
        """All or none; a few thousand at a time."""
        return imports.import_(self._database, rows)

    def standing(self, hub_ids: Sequence[int]) -> dict[int, Standing]:
        """What an import should know of those hubs that are here."""
        return imports.standing(self._database, hub_ids)

    # --- what TOKEN_KEYS should open ---

    def reads_refresh_tokens(self) -> bool:
        """Whether this login may: web's own may not (shared/db/privileges.py)."""
        return key_check.reads_refresh_tokens(self._database)

    def sealed_sample(self, limit: int = 20) -> list[str]:
        """Some sealed refresh tokens."""
        return key_check.some_sealed(self._database, limit)

    def key_check(self) -> str | None:
        """What `vouch` kept, for who may not read a refresh token."""
        return key_check.check(self._database)

    def vouch(self, sealed: str) -> None:
        key_check.vouch(self._database, sealed)

    # --- the refresh loop ---

    def claim(self, limit: int) -> Claims:
        claims = leases.claim(self._database, limit, lease_seconds=self._lease_seconds, cap=self._cap)
        self.clock.set(claims.now)
        return claims

    def save(self, results: Sequence[Result]) -> Landed:
        """The hubs whose result landed: nobody else had claimed, re-installed or disconnected them meanwhile."""
        return saves.save(self._database, results, lease_seconds=self._lease_seconds)

    def hand_back(self, uncalled: Sequence[Lease]) -> None:
        leases.hand_back(self._database, uncalled)

    def due(self, at_most: int) -> int:
        """How many rows could be claimed now, counted no further than `at_most`."""
        return leases.due(self._database, at_most)

    def count(self, counts: Counts) -> None:
        """Add what attempts came to. Gives up soon where it would have to wait: counts can, saves cannot."""
        counting.count(self._database, counts)

    # --- HubSpot as a whole ---

    def provider(self) -> Provider:
        return provider.read(self._database)

    def begin_sweep(self, sweep_seconds: float) -> Provider | None:
        """None where another beat's sweep was just now."""
        begun = provider.begin_sweep(self._database, sweep_seconds)
        if begun is None:
            return None
        self.clock.set(begun[1])
        return begun[0]

    def record(self, outcomes: Iterable[Outcome]) -> Provider:
        """Judge HubSpot by these answers. When it is well again, what was put off is due at once."""
        return provider.record(self._database, outcomes)

    def wake(self) -> int:
        """Make due what was put off. Returns how many."""
        return provider.wake(self._database)

    # --- the revocation brake ---

    def brake(self) -> Brake:
        return brake.read(self._database)

    def confirm_revocations(self) -> int | None:
        """How many that the brake held are revoked now, and the brake is off; None where it was off."""
        return brake.confirm(self._database)

    def dismiss_revocations(self) -> int | None:
        """How many are active and due again, and the brake is off; None where it was off."""
        return brake.dismiss(self._database)

    # --- whose account it is ---

    def unidentified(self) -> bool:
        return identity.any_unidentified(self._database)

    def claim_unidentified(self, limit: int) -> list[tuple[int, str]]:
        """Hubs and their access tokens."""
        return identity.claim_unidentified(self._database, limit)

    def identified(self, hub_id: int, hub_domain: str | None, installed_by: str | None) -> None:
        identity.identified(self._database, hub_id, hub_domain, installed_by)

    # --- what operators ask for ---

    def request(self, hub_ids: Sequence[int]) -> dict[int, Requested]:
        """Refresh now; also tries a revoked one again."""
        return operator.request(self._database, hub_ids)

    def begin_disconnect(self, hub_id: int) -> bool:
        """From now on it is not served. False where there is nothing to disconnect."""
        return operator.begin_disconnect(self._database, hub_id)

    def disconnecting(self, hub_id: int) -> Secrets | None:
        """The same, and what HubSpot is to be told with. None where there is nothing to disconnect."""
        return operator.disconnecting(self._database, hub_id)

    def disconnect_begun(self, hub_id: int) -> Secrets | None:
        """What HubSpot is to be told with, of one that somebody began to disconnect; else None."""
        return operator.begun(self._database, hub_id)

    def wiped(self, hub_id: int) -> None:
        operator.wiped(self._database, hub_id)

    def leftovers(self, limit: int = 20) -> list[int]:
        """Disconnects that somebody began and never finished."""
        return operator.leftovers(self._database, limit)

    # --- what nobody asks for any more ---

    def prune(self) -> int:
        """Take away old history, installs and counts, once an hour, some at a time. How many rows are gone."""
        return pruning.prune(self._database)
