"""Checks of schema and keys before a process changes anything in the database."""

from __future__ import annotations

from shared.db.core.engine import make_engine
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.schema.migrate import check_schema
from shared.settings import Settings, SettingsError
from shared.token_cipher import TokenCipher


def check_database(settings: Settings) -> None:
    """Raises SchemaError, StoreUnavailable, or SettingsError where TOKEN_KEYS are another database's."""
    engine = make_engine(settings.database_url, pool_size=1)
    try:
        check_schema(engine)
        _check_keys(KeyCheckStore(engine), TokenCipher(settings.token_keys))
    finally:
        engine.dispose()


def _check_keys(store: KeyCheckStore, cipher: TokenCipher) -> None:
    """Try some refresh tokens or, without the privilege to read those, the check value that other processes write."""
    can_read_tokens = store.can_read_refresh_tokens()
    check_value = store.read_check_value()
    check_values = [check_value] if check_value else []
    samples = store.sample_refresh_tokens() if can_read_tokens else check_values
    if samples and not any(map(cipher.can_decrypt, samples)):
        raise SettingsError(
            "TOKEN_KEYS decrypts nothing in this database: put the right keys back (nothing was changed)"
        )
    if can_read_tokens and not (check_value and cipher.can_decrypt(check_value)):
        store.write_check_value(cipher.encrypt_check_value())
