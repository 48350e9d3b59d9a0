"""What must be right before worker and beat start: REDIS_URL, the database's schema, the keys."""

from __future__ import annotations

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from shared import startup_checks
from shared.db.core.errors import StoreUnavailable
from shared.db.schema.privileges import WORKER
from shared.settings import Settings, SettingsError

log = structlog.get_logger(__name__)

#: The broker answers, and waiting changes nothing: a wrong password, a database number that does not exist.
WRONG_URL_ERRORS = (AuthenticationError, ResponseError)


def check_broker(app: Celery) -> None:
    """Raises SettingsError where REDIS_URL is wrong. Where the broker does not answer yet, Celery waits for it."""
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=3, interval_start=0.2, interval_step=0.5, timeout=5)
    except (OperationalError, RedisError, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, WRONG_URL_ERRORS):
            raise SettingsError(
                f"the broker at REDIS_URL refuses us ({type(cause).__name__}): correct REDIS_URL"
            ) from None
        log.warning(
            "the broker at REDIS_URL does not answer yet: waiting for it. Start Redis, or correct REDIS_URL",
            why=type(cause).__name__,
        )


def check_database(settings: Settings) -> None:
    """Raises SchemaError or SettingsError. A database that does not answer yet does not stop the start."""
    try:
        startup_checks.check_database(settings, WORKER)
    except StoreUnavailable as error:
        log.warning("PostgreSQL does not answer yet: starting all the same", why=str(error))
