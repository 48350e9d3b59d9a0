"""Counts connections that lack scopes which their app requires, and alerts when many lose the same one."""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from shared.db.alerts.raising import raise_alert
from shared.db.core.statements import Database, single_statement
from shared.domain.alerts import AlertKind

#: An app's connections are counted so often, and soon after its required scopes have changed.
COUNT_INTERVAL = "10 minutes"
#: So often a process looks whether a count is due.
LOOK_SECONDS = 10.0
#: With more connections than so many, a sample of the table estimates the counts.
MAX_COUNTED_ROWS = 500_000
#: Of an app's connections, those that must lose the same scope within an hour before there is an alert: this share,
#: within these limits.
ALERT_SHARE, MIN_ALERT_CONNECTIONS, MAX_ALERT_CONNECTIONS = 0.01, 10, 1000
#: The newest changes that are examined.
EXAMINED_CHANGES = 5000

_IS_DUE = f"""
(counted_at IS NULL OR counted_at < now() - interval '{COUNT_INTERVAL}' OR counted_at > now()
 OR counted_scopes IS DISTINCT FROM required_scopes)
"""
ANY_DUE = single_statement(f"SELECT EXISTS (SELECT FROM tokenkeeper.apps WHERE {_IS_DUE})")
#: The counts are written by the same process afterwards: if it is killed, ten minutes later by another one.
CLAIM = single_statement(f"""
UPDATE tokenkeeper.apps SET counted_at = now(), counted_scopes = required_scopes
 WHERE app = (SELECT app FROM tokenkeeper.apps WHERE {_IS_DUE} ORDER BY app LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING app, required_scopes,
          (SELECT coalesce(sum(connections), 0) FROM tokenkeeper.connection_counts) AS total,
          (SELECT coalesce(sum(connections), 0) FROM tokenkeeper.connection_counts AS counts
            WHERE counts.app = apps.app) AS of_app
""")
#: TABLESAMPLE SYSTEM chooses pages of the table at random.
COUNT = single_statement("""
SET LOCAL jit = off;
WITH lacking AS MATERIALIZED (
    SELECT c.scopes FROM tokenkeeper.connections AS c TABLESAMPLE SYSTEM (:percent)
     WHERE c.app = :app AND c.status IN ('active', 'suspect') AND c.scopes <> '{}'
       AND NOT c.scopes @> CAST(:required_scopes AS text[])
)
SELECT (SELECT count(*) FROM lacking) AS lacking,
       coalesce((SELECT jsonb_object_agg(scope, total) FROM (
           SELECT scope, count(*) AS total FROM lacking, unnest(CAST(:required_scopes AS text[])) AS scope
            WHERE scope <> ALL (lacking.scopes) GROUP BY scope) AS by_scope), '{}') AS by_scope
""")
STORE = single_statement("""
UPDATE tokenkeeper.apps SET lacking = :lacking, lacking_by_scope = CAST(:by_scope AS jsonb)
 WHERE app = :app AND counted_scopes = CAST(:required_scopes AS text[])
""")
FIND_LOST = text(f"""
SELECT scope, count(*) AS total FROM (
    SELECT DISTINCT change.hub_id, change.user_id, scope
      FROM (SELECT hub_id, user_id, detail FROM tokenkeeper.history
             WHERE event = 'scopes_changed' AND app = :app AND at BETWEEN now() - interval '1 hour' AND now()
             ORDER BY at DESC LIMIT {EXAMINED_CHANGES}) AS change,
           jsonb_array_elements_text(change.detail -> 'before') AS scope
     WHERE NOT (change.detail -> 'after') ? scope
) AS lost GROUP BY scope ORDER BY total DESC, scope LIMIT 1
""")
READ_NEWEST_ALERT = text("""
SELECT recovered, detail FROM tokenkeeper.alerts
 WHERE kind = 'scopes_lost' AND app = :app ORDER BY number DESC LIMIT 1
""")


class ScopeWatch:
    """Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._database = Database(engine)
        self._look_seconds = look_seconds
        self._next_look_at = 0.0  #: by time.monotonic()

    def any_due(self) -> bool:
        """Asks PostgreSQL once in LOOK_SECONDS: False in between."""
        if time.monotonic() < self._next_look_at:
            return False
        self._next_look_at = time.monotonic() + self._look_seconds
        return bool(self._database.execute(ANY_DUE)[0][0])

    def measure(self) -> None:
        """Count those of each app that is due, and alert where many have lost a scope."""
        while claimed := self._database.execute(CLAIM):
            app = claimed[0]
            self._count(app)
            with self._database.transaction() as connection:
                _alert_to_lost_scopes(connection, app.app, int(app.of_app))

    def _count(self, app: Row[Any]) -> None:
        percent = min(100.0, 100.0 * MAX_COUNTED_ROWS / max(1, int(app.total)))
        values = {"app": app.app, "required_scopes": app.required_scopes}
        counted = self._database.execute(COUNT, percent=percent, **values)[0]
        scale = 100.0 / percent
        by_scope = {scope: round(total * scale) for scope, total in counted.by_scope.items()}
        self._database.execute(STORE, lacking=round(counted.lacking * scale), by_scope=json.dumps(by_scope), **values)


def _alert_to_lost_scopes(connection: Connection, app: str, connections: int) -> None:
    limit = min(max(MIN_ALERT_CONNECTIONS, ALERT_SHARE * connections), MAX_ALERT_CONNECTIONS)
    lost = connection.execute(FIND_LOST, {"app": app}).one_or_none()
    newest = connection.execute(READ_NEWEST_ALERT, {"app": app}).one_or_none()
    is_open = newest is not None and not newest.recovered
    are_many = lost is not None and lost.total >= limit
    if lost is not None and are_many and not is_open:
        detail = {"scope": lost.scope, "count": lost.total}
        raise_alert(connection, AlertKind.SCOPES_LOST, app=app, detail=detail)
    elif newest is not None and is_open and not are_many:
        detail = {"scope": newest.detail["scope"]}
        raise_alert(connection, AlertKind.SCOPES_LOST, app=app, recovered=True, detail=detail)
