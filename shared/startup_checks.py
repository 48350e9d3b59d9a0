"""Checks of schema and keys before a process changes anything in the database."""

from __future__ import annotations

from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError, StatementRejected, StoreMisconfigured
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.schema.access import check_access
from shared.db.schema.migrate import check_schema
from shared.settings import Settings, SettingsError
from shared.token_cipher import TokenCipher


def check_database(settings: Settings, process: str) -> None:
    """Raises StoreUnavailable where PostgreSQL does not answer now.

    Raises SettingsError or SchemaError where waiting does not help: DATABASE_URL, TOKEN_KEYS, the schema or the
    privileges of `process` (of shared/db/schema/privileges.py) are wrong. The message says what to do.
    """
    engine = make_engine(settings.database_url, pool_size=1)
    try:
        check_schema(engine)
        check_access(engine, process)
        _check_keys(KeyCheckStore(engine), TokenCipher(settings.token_keys))
    except StoreMisconfigured as error:
        raise SettingsError(str(error)) from None
    except StatementRejected as error:
        raise SchemaError(str(error)) from None
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
