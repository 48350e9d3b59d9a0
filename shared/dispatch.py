"""The names of tasks and queues, and the only code that enqueues messages. No message holds a secret in clear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from shared import tracing
from shared.domain.grant import EncryptedInstall
from shared.redis_transport import use_reconnecting_transports
from shared.tracing import SpanKind

STORE_INSTALL = "tokenkeeper.store_install"
SWEEP = "tokenkeeper.sweep"
DISCONNECT = "tokenkeeper.disconnect"

#: For what a person began.
INTERACTIVE_QUEUE = "tokenkeeper.interactive"
#: For beat's messages alone: beat sends none while an old one waits.
BACKGROUND_QUEUE = "tokenkeeper.background"
TASK_ROUTES = {
    STORE_INSTALL: {"queue": INTERACTIVE_QUEUE},
    DISCONNECT: {"queue": INTERACTIVE_QUEUE},
    SWEEP: {"queue": BACKGROUND_QUEUE},
}
#: Each with its own exchange: bound to one exchange with the same key, both queues would get each message.
TASK_QUEUES = tuple(
    Queue(name, Exchange(name, type="direct"), routing_key=name) for name in (INTERACTIVE_QUEUE, BACKGROUND_QUEUE)
)
#: Two spellings of a broker behind a Unix socket.
SOCKET_SCHEMES = ("unix", "redis+socket")
#: A message that is not acknowledged for so long is delivered again.
VISIBILITY_TIMEOUT_SECONDS = 300
#: For the answer of one Sentinel, then the next one is asked. redis-py itself would retry one that is down for longer
#: than a request to web may take.
SENTINEL_TIMEOUT_SECONDS = 0.5


class QueueUnavailable(Exception):
    """The broker did not take the message: it is not queued."""


class Dispatch:
    """Enqueues messages. Every method raises QueueUnavailable, within about three seconds, where it could not."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    @classmethod
    def from_url(cls, redis_url: str) -> Dispatch:
        """For a process that only sends. One try and short timeouts: a browser waits for the answer."""
        use_reconnecting_transports()
        url, options = build_broker_config(redis_url, {"socket_connect_timeout": 1, "socket_timeout": 1})
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
            task_queues=TASK_QUEUES,
            task_routes=TASK_ROUTES,
        )
        app.finalize()  # now, not with the first message: web's processes share its memory
        return cls(app)

    def store_install(self, grant: EncryptedInstall) -> None:
        with tracing.start_span("install.enqueue", SpanKind.PRODUCER, hub_id=grant.hub_id, install_id=grant.install_id):
            self._send(STORE_INSTALL, asdict(grant), shown=f"(hub {grant.hub_id}, encrypted)")

    def disconnect(self, connection_id: int) -> None:
        self._send(DISCONNECT, {"connection_id": connection_id})

    def _send(self, task: str, kwargs: dict[str, Any], *, shown: str = "()") -> None:
        """Without Celery's `expires` and `eta`: they would compare the clocks of two hosts."""
        try:
            self._app.send_task(
                task,
                kwargs=kwargs,
                headers=tracing.get_trace_headers(),
                argsrepr="()",
                kwargsrepr=shown,
            )
        except (OperationalError, RedisError, OSError) as error:
            raise QueueUnavailable(type(error).__name__) from None


def build_broker_config(redis_url: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Celery's broker URL and transport options, for one Redis or for one that Sentinels monitor (`?master_name=`).

    Several Sentinels are separated by semicolons and asked in turn. What one of their URLs has besides its host (login,
    database, query) is given to all: kombu would use the first one's alone, and another one's after a failure.
    """
    urls = [urlsplit(url) for url in redis_url.split(";")]
    transport_options = {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS, "socket_keepalive": True, **options}
    query = {name: value for url in reversed(urls) for name, value in parse_qsl(url.query)}
    if urls[0].scheme == "rediss" or any(name.startswith("ssl_") for name in query):
        _require_certificate(query)  # kombu's default is to take any
    if urls[0].scheme in SOCKET_SCHEMES:
        return _build_socket_url(urls[0], query), transport_options
    database = query.pop("db", "")
    if urls[0].scheme == "sentinel":
        transport_options["master_name"] = query.pop("master_name", "mymaster")
        transport_options["sentinel_kwargs"] = {
            "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS,
            "socket_timeout": SENTINEL_TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
    login = next((url.netloc.rpartition("@")[0] for url in urls if "@" in url.netloc), None)
    path = f"/{database}" if database else next((url.path for url in urls if url.path.strip("/")), urls[0].path)
    completed = []
    for url in urls:
        host = url.netloc.rpartition("@")[2]
        netloc = host if login is None else f"{login}@{host}"
        completed.append(urlunsplit(url._replace(netloc=netloc, path=path, query=urlencode(query))))
    return ";".join(completed), transport_options


def _require_certificate(query: dict[str, str]) -> None:
    """Unless `query` says otherwise, the broker needs a certificate of its host from an authority that we trust."""
    required = query.setdefault("ssl_cert_reqs", "required")
    query.setdefault("ssl_check_hostname", "false" if required.lower().endswith("none") else "true")


def _build_socket_url(url: SplitResult, query: dict[str, str]) -> str:
    """Kombu's own form for a Unix socket."""
    database = query.get("db") or query.get("virtual_host") or "0"
    login, at, _ = url.netloc.rpartition("@")
    return f"redis+socket://{login}{at}{url.path}?{urlencode({'virtual_host': database})}"
