"""What must be right before a process of ours changes anything: one line says what is not."""

from __future__ import annotations

from shared.db.engine import connect
from shared.db.migrate import check
from shared.db.store import ConnectionStore
from shared.settings import Settings, SettingsError
from shared.vault import Vault


def check_database(settings: Settings) -> None:
    """Raises SchemaError, StoreUnavailable, or SettingsError where TOKEN_KEYS are another database's."""
    engine = connect(settings.database_url, pool_size=1)
    try:
        check(engine)
        sealed = ConnectionStore(engine, lease_seconds=settings.lease_seconds).sealed_sample()
    finally:
        engine.dispose()
    if sealed and not any(map(Vault(settings.token_keys).opens, sealed)):
        raise SettingsError(
            "TOKEN_KEYS opens nothing of what this database holds: put the right keys back (nothing was changed)"
        )
