"""What must be right before worker, beat and Flower start: REDIS_URL, the database's schema, the keys."""

from __future__ import annotations

import structlog

from shared import broker_check, startup_checks
from shared.db.core.errors import StoreUnavailable
from shared.db.schema.privileges import WORKER
from shared.settings import Settings, SettingsError

log = structlog.get_logger(__name__)


def check_broker(settings: Settings) -> None:
    """Raises SettingsError where waiting does not help. Where the broker does not answer yet, Celery waits for it."""
    try:
        broker_check.check_broker(settings.redis_url, max_retries=3)
    except broker_check.BrokerUnusable as error:
        raise SettingsError(str(error)) from None
    except broker_check.BrokerUnavailable as error:
        log.warning(
            "the broker at REDIS_URL does not answer yet: waiting for it. Start Redis, or correct REDIS_URL",
            why=str(error),
        )


def check_database(settings: Settings) -> None:
    """Raises SchemaError or SettingsError. A database that does not answer yet does not stop the start."""
    try:
        startup_checks.check_database(settings, WORKER)
    except StoreUnavailable as error:
        log.warning("PostgreSQL does not answer yet: starting all the same", why=str(error))
