"""What must be right before worker and beat start, on the broker's side and the database's."""

from __future__ import annotations

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from shared import startup_checks
from shared.db.core.errors import StoreUnavailable
from shared.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

#: Somebody answers, and waiting changes nothing: a wrong password, a database number that there is not.
WRONG = (AuthenticationError, ResponseError)


def check_broker(app: Celery) -> None:
    """Raises SettingsError where REDIS_URL is wrong. A broker that does not answer yet is waited for, not refused."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=3, interval_start=0.2, interval_step=0.5, timeout=5)
    except (OperationalError, RedisError, OSError) as error:
        why = error.__cause__ or error
        if isinstance(why, WRONG):
            raise SettingsError(f"the broker at REDIS_URL refuses us ({type(why).__name__}): mend REDIS_URL") from None
        log.warning(
            "the broker at REDIS_URL does not answer yet: waiting for it. Start Redis, or mend REDIS_URL",
            why=type(why).__name__,
        )


def check_database(settings: Settings) -> None:
    """Raises SchemaError or SettingsError. A database that does not answer yet is waited for, not refused."""
    try:
        startup_checks.check_database(settings)
    except StoreUnavailable as error:
        log.warning("PostgreSQL does not answer yet: starting all the same", why=str(error))
