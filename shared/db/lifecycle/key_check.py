"""What TOKEN_KEYS are checked against: refresh tokens or, without the privilege to read those, a check value."""

from __future__ import annotations

from sqlalchemy import Engine

from shared.db.core.statements import Database, single_statement

CAN_READ_REFRESH_TOKENS = single_statement("""
SELECT has_column_privilege('tokenkeeper.connections', 'encrypted_refresh_token', 'SELECT')
""")
SAMPLE_REFRESH_TOKENS = single_statement("""
SELECT encrypted_refresh_token FROM tokenkeeper.connections WHERE encrypted_refresh_token IS NOT NULL LIMIT :limit
""")
READ_CHECK_VALUE = single_statement("SELECT encrypted_check_value FROM tokenkeeper.key_check")
WRITE_CHECK_VALUE = single_statement("""
INSERT INTO tokenkeeper.key_check (encrypted_check_value) VALUES (:ciphertext)
ON CONFLICT (singleton) DO UPDATE SET encrypted_check_value = excluded.encrypted_check_value
""")


class KeyCheckStore:
    """What TOKEN_KEYS should decrypt. Every method raises StoreUnavailable."""

    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def can_read_refresh_tokens(self) -> bool:
        return bool(self._database.execute(CAN_READ_REFRESH_TOKENS)[0][0])

    def sample_refresh_tokens(self, limit: int = 20) -> list[str]:
        return [row[0] for row in self._database.execute(SAMPLE_REFRESH_TOKENS, limit=limit)]

    def read_check_value(self) -> str | None:
        rows = self._database.execute(READ_CHECK_VALUE)
        return rows[0][0] if rows else None

    def write_check_value(self, ciphertext: str) -> None:
        self._database.execute(WRITE_CHECK_VALUE, ciphertext=ciphertext)
