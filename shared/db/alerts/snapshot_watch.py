"""Measures what other sessions keep from being removed: old versions of rows, and notifications.

A snapshot that stays open (a transaction, a replication slot, a standby with feedback, a prepared transaction) does not
stop refreshes (docs/adr/0023), but tables and indexes grow meanwhile.
"""

from __future__ import annotations

from sqlalchemy import Engine, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database
from shared.domain.alerts import MAX_QUEUE_USAGE_SHARE, MAX_SNAPSHOT_AGE, AlertKind

#: Without the privilege to read other users' statistics, pg_stat_activity has process, user, application and horizon,
#: and no time: so the age counts from when a sweep first saw this horizon. No text of a query is read.
MEASURE = text("""
WITH holders AS (
    SELECT a.held AS xid, 'session' AS kind, pid::text AS name, usename::text AS user_name, application_name
      FROM pg_stat_activity
     CROSS JOIN LATERAL (SELECT CASE WHEN age(backend_xid) > age(backend_xmin) THEN backend_xid
                                     ELSE coalesce(backend_xmin, backend_xid) END AS held) AS a
     WHERE a.held IS NOT NULL AND pid <> pg_backend_pid()
       AND usename IS NOT NULL  -- not a vacuum of the server's own, which holds up nothing
       AND (datname = current_database() OR datname IS NULL)  -- null: a standby with feedback
    UNION ALL
    SELECT transaction, 'prepared transaction', gid, owner::text, '' FROM pg_prepared_xacts
     WHERE database = current_database()
    UNION ALL
    SELECT xmin, 'replication slot', slot_name::text, '', '' FROM pg_replication_slots WHERE xmin IS NOT NULL
), oldest AS (
    SELECT * FROM holders ORDER BY age(xid) DESC LIMIT 1
)
UPDATE tokenkeeper.oldest_snapshot AS s
   SET xmin_horizon = oldest.xid::text,
       since = CASE WHEN oldest.xid IS NULL THEN NULL
                    WHEN s.xmin_horizon = oldest.xid::text THEN least(s.since, now())
                    ELSE now() END,
       holder = CASE WHEN oldest.xid IS NULL THEN '{}'
                     ELSE jsonb_build_object('kind', oldest.kind, 'name', oldest.name, 'user', oldest.user_name,
                                             'application', oldest.application_name) END,
       queue_usage = pg_notification_queue_usage()
  FROM (SELECT) AS always LEFT JOIN oldest ON true
RETURNING coalesce(extract(epoch FROM now() - s.since), 0)::double precision AS age_seconds, s.holder, s.queue_usage,
          s.is_alerted, s.is_queue_alerted
""")
MARK_ALERTED = text("""
UPDATE tokenkeeper.oldest_snapshot SET is_alerted = :is_old, is_queue_alerted = :is_filling
""")


class SnapshotWatch:
    """Raises StoreUnavailable where PostgreSQL does not answer."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def measure(self) -> None:
        """For each sweep. Raises an alert where a limit is passed, and one when that is over."""
        with self._database.transaction() as connection:
            found = connection.execute(MEASURE).one()
            is_old = found.age_seconds > MAX_SNAPSHOT_AGE.total_seconds()
            # Half of the limit, so that a usage about it does not alert again and again.
            max_usage = MAX_QUEUE_USAGE_SHARE / 2 if found.is_queue_alerted else MAX_QUEUE_USAGE_SHARE
            is_filling = found.queue_usage > max_usage
            if (is_old, is_filling) == (found.is_alerted, found.is_queue_alerted):
                return
            connection.execute(MARK_ALERTED, {"is_old": is_old, "is_filling": is_filling})
            if is_old is not found.is_alerted:
                detail = {"seconds": round(found.age_seconds), **found.holder}
                raise_alert(connection, AlertKind.OLD_SNAPSHOT, recovered=not is_old, detail=detail if is_old else {})
            if is_filling is not found.is_queue_alerted:
                usage = {"percent": round(100 * found.queue_usage), **found.holder}
                raise_alert(connection, AlertKind.NOTIFICATION_QUEUE, recovered=not is_filling, detail=usage)
