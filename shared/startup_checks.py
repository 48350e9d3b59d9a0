"""What must be right before a process of ours changes anything: one line says what is not."""

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
    """By some refresh tokens; who may not read any goes by the check value that another process of ours keeps."""
    trusted = store.can_read_refresh_tokens()
    check_value = store.read_check_value()
    sealed = store.sample_refresh_tokens() if trusted else [check_value] if check_value else []
    if sealed and not any(map(cipher.can_decrypt, sealed)):
        raise SettingsError(
            "TOKEN_KEYS opens nothing of what this database holds: put the right keys back (nothing was changed)"
        )
    if trusted and not (check_value and cipher.can_decrypt(check_value)):
        store.write_check_value(cipher.encrypt_check_value())
