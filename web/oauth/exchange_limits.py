"""Bounds what invented codes cost: anyone can begin a handshake, and each exchange occupies a thread and calls HubSpot.

Who comes above a limit gets a page at once that asks again from the browser. docs/adr/0028 has the figures.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from web.security.rate_limits import Rate, RateLimiter
from web.server.lanes import EXCHANGE_THREADS

V = TypeVar("V")

#: Exchanges at once in this process. Under gunicorn, callbacks queue for so many threads.
MAX_EXCHANGES = EXCHANGE_THREADS
#: Of these, for networks that sent several codes a short while ago that HubSpot rejected: for all of them together.
MAX_UNTRUSTED_EXCHANGES = 1
#: Codes of one network that HubSpot may reject. A person's is rejected where it is too old or sent twice.
REJECTED_CODE_RATE = Rate(30, 1 / 60)
#: A network with fewer rejected codes left than this is not trusted.
TRUSTED_FROM_CODES = 24
#: Requests at once that wait for the same code's exchange in another thread: a double click.
MAX_DOUBLE_CLICKS = 1
#: Until the browser asks again.
BUSY_RETRY_SECONDS = 3.0
#: Codes and states in memory at once; the oldest is dropped first.
MAX_REMEMBERED_CODES = 10_000


class ExchangeRefused(Exception):
    """Not now. The code was not sent to HubSpot and can be sent later."""

    def __init__(self, wait_seconds: float, *, is_allowance_spent: bool) -> None:
        """`is_allowance_spent`: HubSpot rejected too many codes of this network. Else too much is in flight."""
        super().__init__("an exchange was refused")
        self.wait_seconds = wait_seconds
        self.is_allowance_spent = is_allowance_spent


@dataclass(slots=True)
class Attempt:
    """One exchange in flight."""

    is_trusted: bool  #: HubSpot rejected few codes of this network lately
    #: Since HubSpot rejected a code of this handshake, which ended it: no code of it is sent again. None: it did not.
    seconds_since_rejection: float | None
    is_rejected: bool = False  #: set by the caller: HubSpot rejected the code, and no other request had used it


class ExchangeLimits:
    """Thread-safe. What it remembers is this process's: two gunicorn processes allow twice as much."""

    def __init__(self, clock: Callable[[], float], double_click_seconds: float) -> None:
        self._clock = clock
        self._double_click_seconds = double_click_seconds
        self._allowance = RateLimiter("codes that HubSpot rejected", REJECTED_CODE_RATE, clock)
        self._double_clicks = threading.BoundedSemaphore(MAX_DOUBLE_CLICKS)
        self._lock = threading.Lock()
        #: An event per handshake whose code is being exchanged: it is set at the end.
        self._in_flight: dict[str, threading.Event] = {}
        self._untrusted_in_flight = 0
        self._hub_ids: OrderedDict[str, int] = OrderedDict()  #: by install_id
        self._rejected_at: OrderedDict[str, float] = OrderedDict()  #: by handshake_id

    @contextmanager
    def admit(self, network: str, handshake_id: str) -> Iterator[Attempt]:
        """For one exchange. Raises ExchangeRefused."""
        attempt = self._enter(network, handshake_id)
        try:
            yield attempt
        finally:
            self._leave(network, handshake_id, attempt)

    def remember(self, install_id: str, hub_id: int) -> None:
        """HubSpot accepted the code of this install."""
        with self._lock:
            _add(self._hub_ids, install_id, hub_id)

    def find_exchanged(self, handshake_id: str, install_id: str) -> int | None:
        """The account of a code that this process exchanged already; waits a moment while that is in flight."""
        with self._lock:
            in_flight = self._in_flight.get(handshake_id)
        if in_flight is not None and self._double_clicks.acquire(blocking=False):
            in_flight.wait(self._double_click_seconds)
            self._double_clicks.release()
        with self._lock:
            return self._hub_ids.get(install_id)

    def _enter(self, network: str, handshake_id: str) -> Attempt:
        with self._lock:
            if wait_seconds := self._allowance.wait_seconds(network):
                raise ExchangeRefused(wait_seconds, is_allowance_spent=True)
            is_trusted = self._allowance.tokens_left(network) >= TRUSTED_FROM_CODES
            is_full = len(self._in_flight) >= MAX_EXCHANGES or (
                not is_trusted and self._untrusted_in_flight >= MAX_UNTRUSTED_EXCHANGES
            )
            if is_full or handshake_id in self._in_flight:
                raise ExchangeRefused(BUSY_RETRY_SECONDS, is_allowance_spent=False)
            self._in_flight[handshake_id] = threading.Event()
            self._untrusted_in_flight += not is_trusted
            rejected_at = self._rejected_at.get(handshake_id)
        return Attempt(is_trusted, None if rejected_at is None else self._clock() - rejected_at)

    def _leave(self, network: str, handshake_id: str, attempt: Attempt) -> None:
        with self._lock:
            self._in_flight.pop(handshake_id).set()
            self._untrusted_in_flight -= not attempt.is_trusted
            if attempt.is_rejected:
                self._allowance.take(network)
                _add(self._rejected_at, handshake_id, self._clock())


def _add(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    if len(memory) > MAX_REMEMBERED_CODES:
        memory.popitem(last=False)
