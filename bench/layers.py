"""`python -m bench.layers`: where the CPU of a refresh goes in a pool process, layer by layer.

The product's own loop, stores, cipher and client run in this process, against real servers. Compared with a worker,
only Celery is missing, and four things are timed. CPU is the thread's (`time.thread_time`), so that waiting counts as
nothing. The rest, in no layer, is libcurl, the sockets, and the loop itself.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import structlog

from bench.stored_connections import import_connections, prepare_overdue
from bench.testbed import Testbed, run_testbed
from shared.db.core.engine import make_engine
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.results import RefreshResults
from shared.domain.identity import DEFAULT_APP
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.hubspot.transport import Steps, Transport
from shared.settings import Settings
from shared.token_cipher import TokenCipher
from worker.refresh.loop import RefreshLoop
from worker.refresh.refresher import Refresher

P = ParamSpec("P")
T = TypeVar("T")

CONNECTIONS = 10_000
WARM_UP_SECONDS, SECONDS = 4.0, 20.0
DRAIN_SECONDS = 30.0
#: What each layer does. None is within another.
LAYERS = {
    "open": "decrypt the refresh token (Fernet)",
    "attempt": "build the request, parse the reply, decide",
    "claim": "claim: SQL, and objects for the rows",
    "save": "save: JSON, SQL",
}
REST_LABEL = "libcurl, sockets, and the loop"


class Stopwatch:
    """CPU seconds of this process's threads, by layer."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def wrap(self, layer: str, call: Callable[P, T]) -> Callable[P, T]:
        """The call, with its CPU added to the layer's."""

        @wraps(call)
        def time_call(*args: P.args, **kwargs: P.kwargs) -> T:
            start = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                seconds = time.thread_time() - start
                with self._lock:
                    self._seconds[layer] += seconds

        return time_call

    def wrap_steps(self, layer: str, make_steps: Callable[P, Steps[T]]) -> Callable[P, Steps[T]]:
        """The steps, with the CPU of each added to the layer's."""

        @wraps(make_steps)
        def make_timed_steps(*args: P.args, **kwargs: P.kwargs) -> Steps[T]:
            resume = self.wrap(layer, make_steps(*args, **kwargs).send)
            reply: Any = None
            while True:
                try:
                    call = resume(reply)
                except StopIteration as end:
                    result: T = end.value
                    return result
                reply = yield call

        return make_timed_steps

    def read(self) -> dict[str, float]:
        """By layer; the whole process's under "process"."""
        with self._lock:
            return {**self._seconds, "process": time.process_time()}


@contextmanager
def run_loop(testbed: Testbed, stopwatch: Stopwatch, active_seconds: float) -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    settings = Settings.from_env(testbed.environment)
    engine = make_engine(settings.database_url)
    claims = ConnectionClaims(engine, lease_seconds=settings.lease_seconds)
    results = RefreshResults(engine, lease_seconds=settings.lease_seconds)
    transport = Transport(settings.refresh_concurrency)
    hubspot = HubSpot.for_app(settings.apps[DEFAULT_APP], settings, transport)
    cipher = TokenCipher(settings.token_keys)
    refresher = Refresher(hubspot, cipher, claims.clock, Schedule(), settings.http_timeout_seconds)
    for layer, owner, name in (
        ("open", cipher, "decrypt_refresh_token"),
        ("claim", claims, "claim"),
        ("save", results, "save"),
    ):
        setattr(owner, name, stopwatch.wrap(layer, getattr(owner, name)))
    refresher.refresh_steps = stopwatch.wrap_steps("attempt", refresher.refresh_steps)  # type: ignore[method-assign]
    loop = RefreshLoop(
        claims,
        results,
        ProviderStore(engine),
        CounterStore(engine),
        refresher,
        concurrency=settings.refresh_concurrency,
    )
    loop.start()
    try:
        loop.activate(active_seconds)
        yield
    finally:
        loop.drain(DRAIN_SECONDS)
        transport.close()
        engine.dispose()


def split_by_layer(cpu_seconds: dict[str, float], refreshes: int) -> dict[str, float]:
    """Microseconds per refresh of each layer, and of the rest."""
    parts = {layer: cpu_seconds[layer] for layer in LAYERS}
    parts["rest"] = cpu_seconds["process"] - sum(parts.values())
    return {layer: 1e6 * seconds / refreshes for layer, seconds in parts.items()}


def measure_layers(testbed: Testbed, warm_up_seconds: float, seconds: float) -> tuple[dict[str, float], float]:
    """Microseconds per refresh by layer, and refreshes a second. Connections must be overdue."""
    hubspot, stopwatch = testbed.hubspot, Stopwatch()
    with run_loop(testbed, stopwatch, warm_up_seconds + seconds):
        time.sleep(warm_up_seconds)
        refreshes_before, before = hubspot.count_refreshes(), stopwatch.read()
        time.sleep(seconds)
        after, refreshes = stopwatch.read(), hubspot.count_refreshes() - refreshes_before
    cpu_seconds = {layer: after[layer] - before[layer] for layer in after}
    return split_by_layer(cpu_seconds, refreshes), refreshes / seconds


def main() -> int:
    with run_testbed() as testbed:
        import_connections(testbed, CONNECTIONS)
        prepare_overdue(testbed, CONNECTIONS, SECONDS)
        layers, rate = measure_layers(testbed, WARM_UP_SECONDS, SECONDS)
    labels = LAYERS | {"rest": REST_LABEL}
    for layer, microseconds in layers.items():
        print(f"{labels[layer]:<44}{microseconds:8.0f} us")
    print(f"{'one pool process, CPU per refresh':<44}{sum(layers.values()):8.0f} us, at {rate:,.0f} refreshes/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
