"""The apps of the settings, as PostgreSQL knows them: each has a row with HubSpot's state for it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement
from shared.domain.identity import DEFAULT_APP

#: One app after the other in the same order, so that two workers that start at once do not deadlock.
REGISTER = single_statement("""
WITH app AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:apps AS json)) AS app(name text, scopes text[], is_user_level boolean)
), provider AS (
    INSERT INTO tokenkeeper.provider (app) SELECT name FROM app ORDER BY name ON CONFLICT DO NOTHING
)
INSERT INTO tokenkeeper.apps AS stored (app, required_scopes, is_user_level)
SELECT name, scopes, is_user_level FROM app ORDER BY name
ON CONFLICT (app) DO UPDATE
   SET required_scopes = excluded.required_scopes, is_user_level = excluded.is_user_level, seen_at = clock_timestamp()
""")


#: An app that never refreshed and has no connection is left out, such as the one that a new database begins with.
LIST = single_statement("""
SELECT app FROM tokenkeeper.provider AS p
 WHERE swept_at IS NOT NULL
    OR EXISTS (SELECT FROM tokenkeeper.connection_counts AS n WHERE n.app = p.app AND n.connections > 0)
 ORDER BY app
""")


@dataclass(frozen=True, slots=True)
class RegisteredApp:
    name: str
    scopes: tuple[str, ...]  #: that every grant must have
    is_user_level: bool


def register_apps(engine: Engine, apps: Iterable[RegisteredApp]) -> None:
    """For each start of a process that refreshes. Raises StoreUnavailable."""
    Database(engine).execute(REGISTER, apps=json.dumps([asdict(app) for app in apps]))


def list_apps(engine: Engine) -> list[str]:
    """Those with refreshes or connections, by name; also one that is in no setting any more. Never empty."""
    return [row.app for row in Database(engine).execute(LIST)] or [DEFAULT_APP]
