"""`python -m bench.layers`: where the CPU of a refresh goes in a pool process, layer by layer.

The product's own loop, stores, cipher and client, in this process, against real servers. The only difference to a
worker is that Celery is left out, and that five calls are watched. CPU is that of the thread (`time.thread_time`), so
that waiting costs nothing; what no layer claims is what Python's threads cost each other, and the loop itself.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from bench import fleet
from bench.suite import DELAY
from bench.world import World, world
from shared.db.core.engine import make_engine
from shared.db.refresh.claims import ConnectionClaims
from shared.db.refresh.counters import CounterStore
from shared.db.refresh.provider import ProviderStore
from shared.db.refresh.results import RefreshResults
from shared.domain.schedule import Schedule
from shared.hubspot.client import HubSpot
from shared.settings import Settings
from shared.token_cipher import TokenCipher
from worker.refresh import Refresher
from worker.refresh_loop import RefreshLoop

P = ParamSpec("P")
T = TypeVar("T")

SIZE = 10_000
#: Seconds.
WARM, WINDOW = 4.0, 20.0
#: A layer, what it is, and the layer that its time is a part of.
LAYERS = {
    "open": ("open the refresh token (Fernet)", "attempt"),
    "ask": ("ask HubSpot: HTTP, and read the reply", "attempt"),
    "attempt": ("decide what became of it, next due time", None),
    "claim": ("claim: SQL, and rows made of it", None),
    "save": ("save: JSON, SQL", None),
}


class Stopwatch:
    """CPU seconds of this process's threads, by layer."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def watched(self, layer: str, call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            begun = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent = time.thread_time() - begun
                with self._lock:
                    self._spent[layer] += spent

        return timed

    def now(self) -> dict[str, float]:
        with self._lock:
            return {**self._spent, "process": time.process_time()}


@contextmanager
def loop(there: World, watch: Stopwatch) -> Iterator[RefreshLoop]:
    settings = Settings.from_env(there.environment)
    engine = make_engine(settings.database_url)
    claims = ConnectionClaims(engine, lease_seconds=settings.lease_seconds)
    results = RefreshResults(engine, lease_seconds=settings.lease_seconds)
    hubspot = HubSpot.from_settings(settings, connections=settings.refresh_concurrency)
    cipher = TokenCipher(settings.token_keys)
    refresher = Refresher(hubspot, cipher, claims.clock, Schedule(), settings.http_timeout_seconds)
    for layer, owner, name in (
        ("open", cipher, "decrypt_refresh_token"),
        ("ask", hubspot, "refresh"),
        ("attempt", refresher, "refresh"),
        ("claim", claims, "claim"),
        ("save", results, "save"),
    ):
        setattr(owner, name, watch.watched(layer, getattr(owner, name)))
    running = RefreshLoop(
        claims,
        results,
        ProviderStore(engine),
        CounterStore(engine),
        refresher,
        concurrency=settings.refresh_concurrency,
    )
    try:
        running.activate(WARM + WINDOW)
        yield running
    finally:
        running.drain(30)
        hubspot.close()
        engine.dispose()


def split(spent: dict[str, float], refreshes: int) -> dict[str, float]:
    """Microseconds per refresh of each layer alone, and of what none of them claims."""
    alone = {layer: spent[layer] for layer in LAYERS}
    for layer, (_, outer) in LAYERS.items():
        if outer is not None:
            alone[outer] -= spent[layer]
    alone["rest"] = spent["process"] - sum(alone.values())
    return {layer: 1e6 * seconds / refreshes for layer, seconds in alone.items()}


def measured(there: World) -> tuple[dict[str, float], float]:
    """Microseconds by layer, and the refreshes a second of this one process."""
    fleet.grow(there, 0, SIZE)
    there.hubspot.set(delay=DELAY, life=fleet.overdue(there, SIZE))
    watch = Stopwatch()
    with loop(there, watch):
        time.sleep(WARM)
        asked, before = there.hubspot.refreshes(), watch.now()
        time.sleep(WINDOW)
        after, refreshes = watch.now(), there.hubspot.refreshes() - asked
    return split({layer: after[layer] - before[layer] for layer in after}, refreshes), refreshes / WINDOW


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="tokenkeeper-bench-"))
    folder.chmod(0o711)  # PostgreSQL has an account of its own where we are root
    try:
        with world(folder) as there:
            layers, rate = measured(there)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    words = {layer: told for layer, (told, _) in LAYERS.items()} | {"rest": "hand-over between threads, and the loop"}
    for layer, microseconds in layers.items():
        print(f"{words[layer]:<44}{microseconds:8.0f} us")
    print(f"{'one pool process, CPU per refresh':<44}{sum(layers.values()):8.0f} us, at {rate:,.0f} refreshes/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
