"""What the database holds that TOKEN_KEYS should open: refresh tokens or, for who may not read them, a check value."""

from __future__ import annotations

from shared.db.database import Database, alone

READS_REFRESH_TOKENS = alone("""
SELECT has_column_privilege('tokenkeeper.connections', 'sealed_refresh_token', 'SELECT')
""")
SOME_SEALED = alone("""
SELECT sealed_refresh_token FROM tokenkeeper.connections WHERE sealed_refresh_token IS NOT NULL LIMIT :limit
""")
CHECK = alone("SELECT sealed FROM tokenkeeper.key_check")
VOUCH = alone("""
INSERT INTO tokenkeeper.key_check (sealed) VALUES (:sealed) ON CONFLICT (one) DO UPDATE SET sealed = excluded.sealed
""")


def reads_refresh_tokens(database: Database) -> bool:
    return bool(database.ask(READS_REFRESH_TOKENS)[0][0])


def some_sealed(database: Database, limit: int) -> list[str]:
    return [row[0] for row in database.ask(SOME_SEALED, limit=limit)]


def check(database: Database) -> str | None:
    rows = database.ask(CHECK)
    return rows[0][0] if rows else None


def vouch(database: Database, sealed: str) -> None:
    database.ask(VOUCH, sealed=sealed)
