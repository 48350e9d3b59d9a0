"""Account information: due after each install, asked of HubSpot once there is a token.

It has two parts. Domain and installer come from introspection; name, type and region from the first call of HubSpot's
API with the token, the proof that it works. The second part may stay unknown. An install's due date lies in the past
(shared/db/lifecycle/installs.py), so that it comes before those of an import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, Row, text

from shared.db.core.statements import Database, PreparedStatement, single_statement
from shared.db.refresh.provider import Bucket
from shared.domain.account import AccountDetails, AccountInfo
from shared.domain.identity import DEFAULT_APP, ConnectionIdentity
from shared.domain.provider import Condition, Provider, rate_limit

#: During a fault of HubSpot refreshes are its probes. A probe that no refresh has taken for half of the time between
#: two of them is left for account information.
UNUSED_PROBE_INTERVALS = 1.5
#: Where HubSpot answers introspection, but not the API, the account is asked about again so much later, while its
#: install is not older than the second. After that its name stays unknown: an API that fails for long costs no more.
DETAILS_PAUSE_SECONDS, DETAILS_ATTEMPTS_SECONDS = 300, 3600

ANY_DUE = PreparedStatement(
    """
SELECT EXISTS (SELECT FROM tokenkeeper.connections
                WHERE app = :app AND account_info_due_at <= now() AND access_token IS NOT NULL AND expires_at > now())
""",
    is_retried=True,
    app="text",
)
CLAIM_DUE = text("""
WITH due AS MATERIALIZED (
    SELECT id FROM tokenkeeper.connections
     WHERE app = :app AND account_info_due_at <= now() AND access_token IS NOT NULL AND expires_at > now()
     ORDER BY account_info_due_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE tokenkeeper.connections AS c SET account_info_due_at = now() + make_interval(secs => :reclaim_seconds)
  FROM due WHERE c.id = due.id
RETURNING c.id, c.hub_id, c.user_id, c.generation, c.access_token
""")
#: Of another generation than the claim's: it was installed again meanwhile, and is to be asked about again. A row that
#: another transaction has locked is asked about again later. Without new details the known ones stay.
SAVE = single_statement("""
WITH claimed AS MATERIALIZED (
    SELECT id, generation = :generation AS is_current,
           :asks_again AND greatest(installed_at, status_since) > now() - make_interval(secs => :asks_again_seconds)
               AS is_asked_again
      FROM tokenkeeper.connections
     WHERE id = :connection_id AND status <> 'disconnected' AND account_info_due_at IS NOT NULL
       FOR NO KEY UPDATE SKIP LOCKED
), connection AS (
    UPDATE tokenkeeper.connections AS c
       SET account_info_due_at = CASE WHEN NOT claimed.is_current THEN now()
                                      WHEN claimed.is_asked_again THEN now() + make_interval(secs => :pause_seconds) END
      FROM claimed WHERE c.id = claimed.id
)
INSERT INTO tokenkeeper.accounts AS a (connection_id, hub_domain, installed_by, account_name, account_type, region)
SELECT id, :hub_domain, :installed_by, :account_name, :account_type, :region FROM claimed WHERE is_current
ON CONFLICT (connection_id) DO UPDATE
   SET hub_domain = excluded.hub_domain,
       installed_by = excluded.installed_by,
       account_name = CASE WHEN :has_details THEN excluded.account_name ELSE a.account_name END,
       account_type = CASE WHEN :has_details THEN excluded.account_type ELSE a.account_type END,
       region = CASE WHEN :has_details THEN excluded.region ELSE a.region END
""")
#: Only the token that an install brought: no introspection can have one refresh follow another.
REFRESH_INACTIVE = single_statement("""
UPDATE tokenkeeper.connections SET due_at = least(due_at, greatest(now(), retry_not_before))
 WHERE id = :connection_id AND generation = :generation AND status = 'active' AND refreshed_at = installed_at
""")


@dataclass(frozen=True, slots=True)
class ClaimedAccount:
    connection_id: int
    identity: ConnectionIdentity
    generation: int
    access_token: str = field(repr=False)


class AccountInfoStore:
    """What HubSpot says about each account of an app. Every method raises StoreUnavailable."""

    def __init__(
        self, engine: Engine, app: str = DEFAULT_APP, *, lease_seconds: float, max_refreshes_per_second: float = 0.0
    ) -> None:
        """A claim that was not saved within `lease_seconds` may be claimed again: a call takes less than half of it.

        `max_refreshes_per_second` is the setting, which limits these calls too; 0: no limit.
        """
        self._database = Database(engine)
        self._app = app
        self._lease_seconds = lease_seconds
        self._max_refreshes_per_second = max_refreshes_per_second

    def any_missing(self) -> bool:
        return bool(self._database.execute(ANY_DUE, app=self._app)[0][0])

    def claim_missing(self, limit: int) -> tuple[list[ClaimedAccount], Provider]:
        """Accounts to ask HubSpot about now, installs first, and HubSpot's state. At most one call for each account.

        None during a pause. While the rate of refreshes is limited, they are taken from the same token bucket.
        """
        with self._database.transaction() as connection:
            bucket = Bucket.lock(connection, self._app)
            rate = rate_limit(bucket.provider, self._max_refreshes_per_second)
            if bucket.provider.is_paused(bucket.now):
                limit = 0
            elif rate is not None:
                limit = min(limit, _count_allowed(bucket, rate))
            rows = []
            if limit:
                values = {"app": self._app, "limit": limit, "reclaim_seconds": self._lease_seconds}
                rows = [_row_to_account(row, self._app) for row in connection.execute(CLAIM_DUE, values)]
            if rows and rate is not None:
                bucket.save(connection, bucket.refill(rate) - len(rows))
        return rows, bucket.provider

    def save(self, account: ClaimedAccount, info: AccountInfo, *, asks_again: bool = False) -> None:
        """Changes nothing where the account was installed again since the claim.

        `asks_again`: HubSpot could not tell the details now.
        """
        details = info.details or AccountDetails()
        self._database.execute(
            SAVE,
            connection_id=account.connection_id,
            generation=account.generation,
            hub_domain=info.hub_domain,
            installed_by=info.installed_by,
            has_details=info.details is not None,
            account_name=details.name,
            account_type=details.account_type,
            region=details.region,
            asks_again=asks_again,
            pause_seconds=DETAILS_PAUSE_SECONDS,
            asks_again_seconds=DETAILS_ATTEMPTS_SECONDS,
        )

    def refresh_inactive(self, account: ClaimedAccount) -> None:
        """Make the connection due whose install brought a token that HubSpot calls inactive, to find out why."""
        self._database.execute(REFRESH_INACTIVE, connection_id=account.connection_id, generation=account.generation)


def _count_allowed(bucket: Bucket, rate: float) -> int:
    """What the bucket holds, and one on credit: a backlog of refreshes leaves nothing in it."""
    provider = bucket.provider
    if provider.condition is not Condition.OK:
        last_probe_at = max(filter(None, (bucket.refilled_at, provider.since, provider.paused_until)))
        return int((bucket.now - last_probe_at).total_seconds() >= UNUSED_PROBE_INTERVALS / rate)
    return max(0, int(bucket.refill(rate) + 1.0))


def _row_to_account(row: Row[Any], app: str) -> ClaimedAccount:
    return ClaimedAccount(row.id, ConnectionIdentity(app, row.hub_id, row.user_id), row.generation, row.access_token)
