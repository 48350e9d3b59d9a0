"""Where the reading of HubSpot's journal stands: one row for each app, which one process at a time reads.

The offset moves in the transaction that records what the entries report, and only under the newest lease. Two readers
at once would cost HubSpot some calls and nothing else: a report is recorded once, and its effect is decided later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database, next_number, single_statement
from shared.domain.alerts import AlertKind
from shared.domain.journal import (
    RESTART_INTERVAL,
    RETENTION,
    STOPPED_AFTER,
    JournalEntry,
    JournalFile,
    JournalState,
)
from shared.domain.provider import Condition

#: A due date further ahead, and a lease, come from a clock that was ahead, and do not count.
MAX_PAUSE_SECONDS = 3600.0

#: A journal that HubSpot refused to let us read is tried at once where a worker starts: the app may have changed.
REGISTER = single_statement("""
INSERT INTO tokenkeeper.journals AS j (app) VALUES (:app)
ON CONFLICT (app) DO UPDATE SET due_at = now() WHERE j.state = 'refused'
""")
#: Not where HubSpot refuses our app: that is one alert already, and each call more would be refused alike.
CLAIM = single_statement(f"""
UPDATE tokenkeeper.journals
   SET lease_until = now() + make_interval(secs => :lease_seconds), lease_number = {next_number("lease_number")}
 WHERE app = :app
   AND (due_at <= now() OR due_at > now() + make_interval(secs => {MAX_PAUSE_SECONDS}))
   AND (lease_until IS NULL OR lease_until <= now() OR lease_until > now() + make_interval(secs => :lease_seconds))
   AND NOT EXISTS (SELECT FROM tokenkeeper.provider WHERE app = :app AND condition = '{Condition.APP_REJECTED}')
RETURNING lease_number, next_offset, failures, reason,
          coalesce(restarted_at < now() - make_interval(secs => :restart_seconds), true) AS may_restart,
          next_offset IS NOT NULL AND coalesce(read_at, since) < now() - make_interval(secs => :retention_seconds)
              AS is_offset_old
""")
_IS_CURRENT = "app = :app AND lease_number = :lease_number"
RENEW = single_statement(f"""
UPDATE tokenkeeper.journals SET lease_until = now() + make_interval(secs => :lease_seconds) WHERE {_IS_CURRENT}
RETURNING 1
""")
ADVANCE = text(f"""
UPDATE tokenkeeper.journals
   SET next_offset = :next_offset, failures = 0, lease_until = now() + make_interval(secs => :lease_seconds)
 WHERE {_IS_CURRENT}
RETURNING 1
""")
REPORT = text("""
INSERT INTO tokenkeeper.reported_uninstalls (app, hub_id, user_id, occurred_at, witness)
SELECT :app, report.hub_id, report.user_id, report.occurred_at, 'journal'
  FROM unnest(CAST(:hub_ids AS bigint[]), CAST(:user_ids AS bigint[]), CAST(:instants AS timestamptz[]))
       AS report(hub_id, user_id, occurred_at)
 ORDER BY 2, 3, 4
ON CONFLICT DO NOTHING
RETURNING 1
""")
#: Entries may be lost: what was not refreshed since has to be asked about.
_ASK_ALL = "unheard_since = now(), asked_up_to = 0"
RESTART = single_statement(f"""
UPDATE tokenkeeper.journals SET next_offset = NULL, restarted_at = now(), {_ASK_ALL} WHERE {_IS_CURRENT}
RETURNING 1
""")
#: While HubSpot's state limits or pauses refreshes, nothing is asked.
READ_GAP = single_statement("""
SELECT j.unheard_since, j.asked_up_to FROM tokenkeeper.journals AS j JOIN tokenkeeper.provider AS p ON p.app = j.app
 WHERE j.app = :app AND j.lease_number = :lease_number AND j.unheard_since IS NOT NULL
   AND p.condition = 'ok' AND p.rate IS NULL AND coalesce(p.paused_until <= now(), true)
""")
SAVE_GAP = single_statement(f"""
UPDATE tokenkeeper.journals
   SET asked_up_to = coalesce(:asked_up_to, 0),
       unheard_since = CASE WHEN CAST(:asked_up_to AS bigint) IS NOT NULL THEN unheard_since END
 WHERE {_IS_CURRENT} AND unheard_since = :since
""")
ASK_ALL = text(f"UPDATE tokenkeeper.journals SET {_ASK_ALL} WHERE {_IS_CURRENT}")
#: `since` begins with a new state; `is_end`: the end of the journal was reached.
END_TURN = text(f"""
WITH before AS MATERIALIZED (SELECT state FROM tokenkeeper.journals WHERE {_IS_CURRENT} FOR NO KEY UPDATE)
UPDATE tokenkeeper.journals AS j
   SET state = :state, since = CASE WHEN j.state = :state THEN j.since ELSE now() END, reason = :reason,
       failures = CASE WHEN :is_failure THEN j.failures + 1 ELSE 0 END,
       read_at = CASE WHEN :is_end THEN now() ELSE j.read_at END,
       due_at = now() + make_interval(secs => :wait_seconds), lease_until = NULL
  FROM before WHERE {_IS_CURRENT}
RETURNING before.state AS before, j.is_alerted
""")
_IS_STOPPED = (
    "state IN ('failing', 'refused') AND read_at IS NOT NULL AND since < now() - make_interval(secs => :seconds)"
)
FIND_STOPPED = single_statement(f"""
SELECT 1 FROM tokenkeeper.journals WHERE app = :app AND NOT is_alerted AND {_IS_STOPPED}
""")
MARK_STOPPED = text(f"""
UPDATE tokenkeeper.journals SET is_alerted = true WHERE app = :app AND NOT is_alerted AND {_IS_STOPPED}
RETURNING state, reason
""")
MARK_RECOVERED = text("UPDATE tokenkeeper.journals SET is_alerted = false WHERE app = :app")


@dataclass(frozen=True, slots=True)
class JournalClaim:
    """The right to read the journal of an app until the lease ends."""

    lease_number: int
    next_offset: str | None  #: None: the earliest file is next
    failures: int  #: consecutive turns before this one that did not reach the end
    reason: str | None  #: of the newest of them
    may_restart: bool  #: it was not read from its beginning again within RESTART_INTERVAL
    is_offset_old: bool  #: HubSpot does not keep entries for so long


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries from before `since` may be lost: connections not refreshed since are to be asked about."""

    since: datetime
    asked_up_to: int  #: connections with ids up to this one have been


class JournalStore:
    """The journal of one app. Every method raises StoreUnavailable where PostgreSQL does not answer.

    What is given a claim changes nothing where another process has claimed the journal since.
    """

    def __init__(self, engine: Engine, app: str, *, lease_seconds: float) -> None:
        """`lease_seconds`: longer than one call to HubSpot can take."""
        self._database = Database(engine)
        self._app = app
        self._lease_seconds = lease_seconds

    def register(self) -> None:
        """Call it once when the process starts."""
        self._database.execute(REGISTER, app=self._app)

    def claim(self) -> JournalClaim | None:
        """None where it is not due, another process reads it, or HubSpot refuses the app."""
        rows = self._database.execute(
            CLAIM,
            app=self._app,
            lease_seconds=self._lease_seconds,
            retention_seconds=RETENTION.total_seconds(),
            restart_seconds=RESTART_INTERVAL.total_seconds(),
        )
        return JournalClaim(**rows[0]._asdict()) if rows else None

    def renew(self, claim: JournalClaim) -> bool:
        """Whether the claim is still this process's."""
        return bool(self._database.execute(RENEW, lease_seconds=self._lease_seconds, **self._key(claim)))

    def advance(
        self, claim: JournalClaim, file: JournalFile, uninstalls: Sequence[JournalEntry], *, has_gap: bool = False
    ) -> int | None:
        """Move the offset behind `file`, and record what it reports, together. How many reports are new.

        `has_gap`: the file could not be read. None, and nothing is changed, where the claim is another process's.
        """
        with self._database.transaction() as connection:
            values = {"next_offset": file.offset, "lease_seconds": self._lease_seconds, **self._key(claim)}
            if not connection.execute(ADVANCE, values).all():
                return None
            if has_gap:
                connection.execute(ASK_ALL, self._key(claim))
            if not uninstalls:
                return 0
            reports = {
                "hub_ids": [entry.hub_id for entry in uninstalls],
                "user_ids": [entry.user_id for entry in uninstalls],
                "instants": [entry.occurred_at for entry in uninstalls],
            }
            return len(connection.execute(REPORT, {"app": self._app, **reports}).all())

    def restart(self, claim: JournalClaim) -> bool:
        """The offset is lost: read from the earliest file, and ask about every connection not refreshed from now on."""
        return bool(self._database.execute(RESTART, **self._key(claim)))

    def read_gap(self, claim: JournalClaim) -> Gap | None:
        """None where nothing is to be asked now."""
        rows = self._database.execute(READ_GAP, **self._key(claim))
        return Gap(rows[0].unheard_since, rows[0].asked_up_to) if rows else None

    def save_gap(self, claim: JournalClaim, since: datetime, asked_up_to: int | None) -> None:
        """`asked_up_to`: None where all connections have been asked about that were not refreshed since."""
        self._database.execute(SAVE_GAP, since=since, asked_up_to=asked_up_to, **self._key(claim))

    def end_turn(
        self, claim: JournalClaim, *, is_end: bool, wait_seconds: float, state: JournalState, reason: str | None = None
    ) -> JournalState | None:
        """Release the claim; the next turn begins after `wait_seconds`. The state before it.

        None where the claim is another process's.
        """
        values = {
            "is_end": is_end,
            "is_failure": state is not JournalState.READING,
            "wait_seconds": min(wait_seconds, MAX_PAUSE_SECONDS),
            "state": state.value,
            "reason": reason,
        }
        with self._database.transaction() as connection:
            row = connection.execute(END_TURN, {**values, **self._key(claim)}).one_or_none()
            if row is not None and row.is_alerted and state is JournalState.READING:
                connection.execute(MARK_RECOVERED, {"app": self._app})
                self._raise_alert(connection, {}, recovered=True)
        return None if row is None else JournalState(row.before)

    def alert_if_stopped(self) -> None:
        """One alert where a journal that has been read is not read any more."""
        values = {"app": self._app, "seconds": STOPPED_AFTER.total_seconds()}
        if not self._database.execute(FIND_STOPPED, **values):
            return
        with self._database.transaction() as connection:
            row = connection.execute(MARK_STOPPED, values).one_or_none()
            if row is not None:
                self._raise_alert(connection, {"state": row.state, "reason": row.reason}, recovered=False)

    def _raise_alert(self, connection: Connection, detail: dict[str, Any], *, recovered: bool) -> None:
        raise_alert(
            connection, AlertKind.JOURNAL, app=self._app, recovered=recovered, detail={"app": self._app, **detail}
        )

    def _key(self, claim: JournalClaim) -> dict[str, Any]:
        return {"app": self._app, "lease_number": claim.lease_number}
