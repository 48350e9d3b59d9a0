"""Task names, and the only code that puts a message on the queue. No message holds a secret in clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shared import tracing
from shared.domain.grant import EncryptedInstall
from shared.tracing import SpanKind

STORE_INSTALL = "tokenkeeper.store_install"
SWEEP = "tokenkeeper.sweep"
REFRESH = "tokenkeeper.refresh"
IDENTIFY = "tokenkeeper.identify"
DISCONNECT = "tokenkeeper.disconnect"
ALERTS = "tokenkeeper.alerts"

#: People wait for these; a backlog of refreshes must not stand before them.
INTERACTIVE_QUEUE = "tokenkeeper.interactive"
BACKGROUND_QUEUE = "tokenkeeper.background"
ROUTES = {
    STORE_INSTALL: {"queue": INTERACTIVE_QUEUE},
    DISCONNECT: {"queue": INTERACTIVE_QUEUE},
    IDENTIFY: {"queue": BACKGROUND_QUEUE},
    SWEEP: {"queue": BACKGROUND_QUEUE},
    REFRESH: {"queue": BACKGROUND_QUEUE},
    ALERTS: {"queue": BACKGROUND_QUEUE},
}
#: Each with an exchange of its own: bound to one exchange by one key, each message would go into both.
QUEUES = tuple(
    Queue(name, Exchange(name, type="direct"), routing_key=name) for name in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE)
)
#: Seconds. Longer than any retry's countdown: an unacknowledged message older than this is delivered again.
VISIBILITY_TIMEOUT = 300
#: Seconds for one Sentinel's word, then the next one is asked; redis-py itself would first try the dead one for longer
#: than anybody waits.
SENTINEL_SECONDS = 0.5


class QueueUnavailable(Exception):
    """The broker did not take the message: it is not queued."""


class Dispatch:
    """Puts messages on the queue, or says within about three seconds that it could not."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @classmethod
    def to(cls, redis_url: str) -> Dispatch:
        """For a process that only sends. One try, short timeouts: somebody waits for the answer."""
        url, options = broker(redis_url, {"socket_connect_timeout": 1, "socket_timeout": 1})
        app = Celery("tokenkeeper", broker=url, set_as_current=False)
        app.conf.update(
            broker_transport_options=options,
            broker_connection_timeout=1,
            task_publish_retry_policy={
                "max_retries": 1,
                "interval_start": 0,
                "interval_step": 0,
                "interval_max": 0,
            },
            task_ignore_result=True,
            task_queues=QUEUES,
            task_routes=ROUTES,
        )
        return cls(app)

    def store_install(self, grant: EncryptedInstall) -> None:
        """Raises QueueUnavailable."""
        with tracing.start_span("install.enqueue", SpanKind.PRODUCER, hub_id=grant.hub_id, install_id=grant.install_id):
            self._send(STORE_INSTALL, asdict(grant), shown=f"(hub {grant.hub_id}, encrypted)")

    def disconnect(self, hub_id: int) -> None:
        """Raises QueueUnavailable."""
        self._send(DISCONNECT, {"hub_id": hub_id})

    def refresh(self, shifts: int, expires: float) -> None:
        """Wake pool processes to claim what is due; stale after `expires` s. Raises QueueUnavailable."""
        for _ in range(shifts):
            self._send(REFRESH, {}, expires=expires)

    def identify(self, expires: float | None = None) -> None:
        """Have new connections introspected for their domain and installer. Raises QueueUnavailable."""
        self._send(IDENTIFY, {}, expires=expires)

    def alerts(self, expires: float) -> None:
        """Have alerts logged and posted. Raises QueueUnavailable."""
        self._send(ALERTS, {}, expires=expires)

    def _send(self, task: str, kwargs: dict[str, Any], *, shown: str = "()", expires: float | None = None) -> None:
        try:
            self._app.send_task(
                task,
                kwargs=kwargs,
                expires=expires,
                headers=tracing.get_trace_headers(),
                argsrepr="()",
                kwargsrepr=shown,
            )
        except (OperationalError, RedisError, OSError) as error:
            raise QueueUnavailable(type(error).__name__) from None


def broker(redis_url: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The URL and the transport options that Celery wants. `?master_name=` names what Sentinels watch.

    Several, with a semicolon between them, are asked in turn. Whatever one of them says besides its host holds for
    all: kombu would go by the first alone, and by another one after a failure.
    """
    urls = [urlsplit(url) for url in redis_url.split(";")]
    merged = {"visibility_timeout": VISIBILITY_TIMEOUT, "socket_keepalive": True, **options}
    query = {name: value for url in reversed(urls) for name, value in parse_qsl(url.query)}
    if urls[0].scheme == "sentinel":
        merged["master_name"] = query.pop("master_name", "mymaster")
        merged["sentinel_kwargs"] = {
            "socket_connect_timeout": SENTINEL_SECONDS,
            "socket_timeout": SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
    login = next((url.netloc.rpartition("@")[0] for url in urls if "@" in url.netloc), None)
    path = next((url.path for url in urls if url.path.strip("/")), urls[0].path)
    alike = []
    for url in urls:
        host = url.netloc.rpartition("@")[2]
        netloc = host if login is None else f"{login}@{host}"
        alike.append(urlunsplit(url._replace(netloc=netloc, path=path, query=urlencode(query))))
    return ";".join(alike), merged
