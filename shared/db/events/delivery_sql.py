"""The statements of shared/db/events/delivery.py."""

from __future__ import annotations

from sqlalchemy import text

from shared.db.core.statements import next_number, single_statement

#: Of a batch: lines of the history, and of those that one connection has waiting.
BATCH_EVENTS, CHAIN_EVENTS = 50, 10
#: One batch is sent in less (worker/delivery/events.py).
LEASE_SECONDS = 30.0
#: Lines that are too old to be sent are skipped by so many at once.
SKIPPED_LINES = 10_000
#: A pause or a lease that ends later is of a clock that was ahead. A lease may end later than LEASE_SECONDS after
#: now(), which is when this transaction began: another one may have taken it since.
_MAX_PAUSE, _MAX_LEASE = "2 hours", f"{2 * LEASE_SECONDS:.0f} seconds"

#: `h` is a line of the history.
_EVENT = "h.id, h.at, h.event, h.detail, h.status, h.app, h.hub_id, h.user_id, h.customer"
_MAY_BEGIN = f"""
is_enabled AND stopped_at IS NULL
AND (paused_until IS NULL OR paused_until <= now() OR paused_until > now() + interval '{_MAX_PAUSE}')
AND (lease_until IS NULL OR lease_until <= now() OR lease_until > now() + interval '{_MAX_LEASE}')
"""
#: A new receiver gets what happens from now on.
ENABLE = single_statement("""
UPDATE tokenkeeper.event_delivery
   SET is_enabled = :is_enabled,
       cursor_id = CASE WHEN :is_enabled
                        THEN coalesce(cursor_id, (SELECT coalesce(max(id), 0) FROM tokenkeeper.history))
                        ELSE cursor_id END
 WHERE is_enabled <> :is_enabled
""")
ANY_TO_SEND = single_statement(f"""
SELECT EXISTS (SELECT FROM tokenkeeper.event_delivery AS d
                WHERE {_MAY_BEGIN}
                  AND (EXISTS (SELECT FROM tokenkeeper.history AS h WHERE h.id > d.cursor_id)
                       OR EXISTS (SELECT FROM tokenkeeper.event_retries WHERE due_at <= now())))
""")
LOCK = text(f"""
SELECT *, clock_timestamp() AS now,
       (SELECT count(*) FROM tokenkeeper.event_retries) AS waiting,
       (SELECT count(*) FROM tokenkeeper.event_retries
         WHERE failed_at > coalesce(last_accepted_at, '-infinity')) AS failing_connections
  FROM tokenkeeper.event_delivery WHERE {_MAY_BEGIN} FOR NO KEY UPDATE SKIP LOCKED
""")
READ_WAITING = text(f"""
SELECT r.attempts, {_EVENT}
  FROM (SELECT * FROM tokenkeeper.event_retries WHERE due_at <= now() ORDER BY due_at LIMIT :connections) AS r
 CROSS JOIN LATERAL (
    SELECT {_EVENT} FROM tokenkeeper.history AS h
     WHERE h.hub_id = r.hub_id AND h.app = r.app AND h.user_id IS NOT DISTINCT FROM r.user_id
       AND h.id BETWEEN r.history_id AND :cursor_id
     ORDER BY h.id LIMIT {CHAIN_EVENTS}
 ) AS h
 ORDER BY r.due_at, h.hub_id, h.app, h.user_id, h.id
""")
#: Those of connections that wait, too: the cursor passes them.
READ_NEW = text(f"""
SELECT 0 AS attempts, {_EVENT}, r.hub_id IS NOT NULL AS is_waiting
  FROM (SELECT * FROM tokenkeeper.history WHERE id > :cursor_id ORDER BY id LIMIT :lines) AS h
  LEFT JOIN tokenkeeper.event_retries AS r
    ON r.hub_id = h.hub_id AND r.app = h.app AND r.user_id IS NOT DISTINCT FROM h.user_id
 ORDER BY h.id
""")
#: What happened while nothing was sent for longer than events are sent for.
SKIP_OLD = text(f"""
WITH next AS MATERIALIZED (
    SELECT id, at FROM tokenkeeper.history
     WHERE id > :cursor_id AND id > :replay_until ORDER BY id LIMIT {SKIPPED_LINES}
)
SELECT max(id) AS id, count(*) AS total FROM next
 WHERE id < coalesce((SELECT min(id) FROM next WHERE at >= :oldest_sent), 9223372036854775807)
""")
COUNT_DROPPED = text("UPDATE tokenkeeper.event_delivery SET dropped = dropped + :count")
MOVE_CURSOR = text("""
UPDATE tokenkeeper.event_delivery SET cursor_id = :cursor_id WHERE cursor_id <> :cursor_id
""")
BEGIN_LEASE = text(f"""
UPDATE tokenkeeper.event_delivery
   SET lease_until = clock_timestamp() + interval '{LEASE_SECONDS:.0f} seconds',
       lease_number = {next_number("lease_number")}
RETURNING lease_number
""")
LOCK_LEASED = text("""
SELECT failing_since, clock_timestamp() AS now FROM tokenkeeper.event_delivery
 WHERE lease_number = :lease_number AND lease_until IS NOT NULL FOR NO KEY UPDATE
""")
_OUTCOMES = """
json_to_recordset(CAST(:outcomes AS json)) AS outcome(
    hub_id bigint, app text, user_id bigint, history_id bigint, attempts integer, wait_seconds double precision,
    is_failure boolean, error text)
"""
WAIT = text(f"""
INSERT INTO tokenkeeper.event_retries AS r (hub_id, app, user_id, history_id, attempts, due_at, failed_at, last_error)
SELECT hub_id, app, user_id, history_id, attempts,
       clock_timestamp() + make_interval(secs => wait_seconds * (0.8 + 0.4 * random())),
       CASE WHEN is_failure THEN clock_timestamp() END, error
  FROM {_OUTCOMES}
ON CONFLICT ON CONSTRAINT event_retries_connection DO UPDATE
   SET history_id = excluded.history_id, attempts = excluded.attempts, due_at = excluded.due_at,
       failed_at = coalesce(excluded.failed_at, r.failed_at), last_error = coalesce(excluded.last_error, r.last_error)
""")
#: `history_id` is the last event of each that is done with. Where others wait behind it, they are due.
END_WAIT = text(f"""
WITH done AS MATERIALIZED (
    SELECT r.ctid AS row, (SELECT min(h.id) FROM tokenkeeper.history AS h
             WHERE h.hub_id = r.hub_id AND h.app = r.app AND h.user_id IS NOT DISTINCT FROM r.user_id
               AND h.id > outcome.history_id AND h.id <= :cursor_id) AS next_id
      FROM {_OUTCOMES} JOIN tokenkeeper.event_retries AS r
        ON r.hub_id = outcome.hub_id AND r.app = outcome.app AND r.user_id IS NOT DISTINCT FROM outcome.user_id
), waiting AS (
    UPDATE tokenkeeper.event_retries AS r
       SET history_id = done.next_id, attempts = 0, due_at = now(), failed_at = NULL, last_error = NULL
      FROM done WHERE r.ctid = done.row AND done.next_id IS NOT NULL
)
DELETE FROM tokenkeeper.event_retries AS r USING done WHERE r.ctid = done.row AND done.next_id IS NULL
""")
END_LEASE = text("""
UPDATE tokenkeeper.event_delivery
   SET lease_until = NULL, cursor_id = :cursor_id, rate = :rate, failures = :failures,
       failing_since = CASE WHEN :failures = 0 THEN NULL ELSE coalesce(failing_since, clock_timestamp()) END,
       paused_until = CASE WHEN :pause_seconds > 0 THEN clock_timestamp() + make_interval(secs => :pause_seconds) END,
       stopped_at = CASE WHEN :is_gone THEN clock_timestamp() END,
       last_accepted_at = CASE WHEN :accepted > 0 THEN clock_timestamp() ELSE last_accepted_at END,
       accepted = accepted + :accepted, dropped = dropped + :dropped
""")
RETRY_ALL_NOW = text("UPDATE tokenkeeper.event_retries SET due_at = now() WHERE due_at > now()")
#: Also ends the lease of a process that is sending: what it reports would move the cursor.
REPLAY = text(f"""
UPDATE tokenkeeper.event_delivery AS d
   SET replay_until = greatest(replay_until, cursor_id), replayed_at = clock_timestamp(), cursor_id = :since,
       lease_until = NULL, lease_number = {next_number("lease_number")}
 WHERE cursor_id > :since
RETURNING (SELECT count(*) FROM tokenkeeper.history AS h WHERE h.id > :since AND h.id <= d.replay_until) AS total
""")
FORGET_LATER_WAITS = text("DELETE FROM tokenkeeper.event_retries WHERE history_id > :since")
RESUME = text(f"""
UPDATE tokenkeeper.event_delivery
   SET stopped_at = NULL, paused_until = NULL, lease_until = NULL, lease_number = {next_number("lease_number")}
RETURNING is_enabled
""")
