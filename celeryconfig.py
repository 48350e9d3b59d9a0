"""Celery's settings and the beat schedule, nothing else."""

from __future__ import annotations

import os

from shared.dispatch import BACKGROUND_QUEUE, SWEEP, TASK_QUEUES, TASK_ROUTES, build_broker_config
from shared.settings import Settings

_settings = Settings.from_env(os.environ, needs=("REDIS_URL",))  # noqa: TID251  an entry point

broker_url, broker_transport_options = build_broker_config(
    _settings.redis_url,
    {
        "socket_connect_timeout": 3,
        "socket_timeout": 10,
        "health_check_interval": 15,
        # The message of a worker that died is delivered again soon after the visibility timeout.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "max_connections": 50,
    },
)
broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # workers wait for a broker that is down, for ever
worker_consumer = "worker.messages.consumer:ReconnectingConsumer"

task_queues = TASK_QUEUES
task_default_queue = BACKGROUND_QUEUE
task_routes = TASK_ROUTES
task_serializer = "json"
accept_content = ["json"]
task_ignore_result = True
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

# A lost install would lose a customer: the tasks that need it have acks_late (worker/tasks.py). The others are
# acknowledged on arrival: a later sweep does what a lost one left undone.
worker_prefetch_multiplier = 1
worker_hijack_root_logger = False
# Events of tasks are sent once Flower asks for them, which it does every few seconds: for one sweep they took more CPU
# than all else that the worker's main process does for it.
worker_send_task_events = False
# A lost connection to the broker must not cancel tasks: their results go to PostgreSQL, not through Redis.
worker_cancel_long_running_tasks_on_connection_loss = False

beat_max_loop_interval = _settings.sweep_seconds
# No `expires`: Celery compares it with the worker's clock. Beat sends no message while one waits (worker/beat.py).
beat_schedule = {"sweep": {"task": SWEEP, "schedule": _settings.sweep_seconds}}
beat_scheduler = "worker.beat:MonotonicScheduler"
