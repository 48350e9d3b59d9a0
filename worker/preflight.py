"""What must be right before a process of ours starts: one line says what is not, and nothing is touched."""

from __future__ import annotations

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from shared.db.engine import connect
from shared.db.errors import StoreUnavailable
from shared.db.migrate import check
from shared.db.store import ConnectionStore
from shared.settings import Settings, SettingsError
from shared.vault import Vault

log = structlog.get_logger(__name__)


def check_broker(app: Celery) -> None:
    """Raises SettingsError where nobody answers at REDIS_URL. Once we run, a broker that goes away is waited for."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=3, interval_start=0.2, interval_step=0.5, timeout=5)
    except (OperationalError, RedisError, OSError) as error:
        raise SettingsError(
            f"the broker at REDIS_URL does not answer ({type(error).__name__}): start Redis, or mend REDIS_URL"
        ) from None


def check_database(settings: Settings) -> None:
    """Raises SchemaError or SettingsError. A database that does not answer yet is waited for, not refused."""
    engine = connect(settings.database_url)
    try:
        check(engine)
        sealed = ConnectionStore(engine, lease_seconds=settings.lease_seconds).sealed_sample()
    except StoreUnavailable as error:
        log.warning("PostgreSQL does not answer yet: starting all the same", why=str(error))
        return
    finally:
        engine.dispose()
    check_keys(Vault(settings.token_keys), sealed)


def check_keys(vault: Vault, sealed: list[str]) -> None:
    """Raises SettingsError where the keys open none of what is stored: they are not this database's keys."""
    if sealed and not any(map(vault.opens, sealed)):
        raise SettingsError(
            "TOKEN_KEYS opens nothing of what this database holds: put the right keys back (nothing was changed)"
        )
