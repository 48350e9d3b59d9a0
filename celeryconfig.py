"""Celery's settings and the beat schedule, nothing else."""

from __future__ import annotations

import os

from shared.dispatch import BACKGROUND_QUEUE, QUEUES, ROUTES, SWEEP, broker
from shared.settings import Settings

_settings = Settings.from_env(os.environ, needs=("REDIS_URL",))  # noqa: TID251  an entry point

broker_url, broker_transport_options = broker(
    _settings.redis_url,
    {
        "socket_connect_timeout": 3,
        "socket_timeout": 10,
        "health_check_interval": 15,
        # A message that died with its worker comes back after the visibility timeout, and soon after it.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "max_connections": 50,
    },
)
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # a broker that comes back finds its workers waiting

task_queues = QUEUES
task_default_queue = BACKGROUND_QUEUE
task_routes = ROUTES
task_serializer = "json"
accept_content = ["json"]
task_ignore_result = True
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

# Losing an install would lose a customer; a sweep or a shift that is lost is made good by the next one.
# So acks_late stands at the tasks that need it (worker/tasks.py), and the rest is acknowledged on arrival.
worker_prefetch_multiplier = 1
worker_hijack_root_logger = False
worker_send_task_events = True
task_send_sent_event = True
# A lost broker connection must not cancel what is in flight: the results go to Postgres, not through Redis.
worker_cancel_long_running_tasks_on_connection_loss = False

beat_max_loop_interval = _settings.sweep_seconds
beat_schedule = {
    "sweep": {
        "task": SWEEP,
        "schedule": _settings.sweep_seconds,
        # A sweep nobody took in time is worthless: the next one is on its way.
        "options": {"expires": _settings.sweep_seconds},
    }
}
