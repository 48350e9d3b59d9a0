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
        _check_keys(ConnectionStore(engine, lease_seconds=settings.lease_seconds), Vault(settings.token_keys))
    finally:
        engine.dispose()


def _check_keys(store: ConnectionStore, vault: Vault) -> None:
    """By some refresh tokens; who may not read any goes by the check value that another process of ours keeps."""
    trusted = store.reads_refresh_tokens()
    check = store.key_check()
    sealed = store.sealed_sample() if trusted else [check] if check else []
    if sealed and not any(map(vault.opens, sealed)):
        raise SettingsError(
            "TOKEN_KEYS opens nothing of what this database holds: put the right keys back (nothing was changed)"
        )
    if trusted and not (check and vault.opens(check)):
        store.vouch(vault.seal_check())
