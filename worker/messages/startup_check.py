"""What must be right about REDIS_URL before worker, beat and Flower start."""

from __future__ import annotations

import structlog

from shared import broker_check
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
