"""How often one address may send requests: a token bucket for each, in the memory of this process."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import structlog
from flask import Request, Response, request

from web.error_pages import RATE_LIMITED, AbortWithPage

log = structlog.get_logger(__name__)

#: Addresses in memory at once; the one whose last request is oldest is dropped first.
MAX_ADDRESSES = 10_000
#: A household or a server has at least all IPv6 addresses that share this many leading bits.
IPV6_PREFIX_BITS = 64
#: Characters of an address that is no IP address.
MAX_ADDRESS_CHARACTERS = 45

View = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Rate:
    """For one address, in each process of gunicorn."""

    burst: int  #: requests at once
    per_second: float  #: requests a second in the long run


#: /install and the callback. An office behind one address needs far less. A callback costs a call to HubSpot.
HANDSHAKE_RATE = Rate(120, 20.0)
#: 10 a minute are 14,400 a day, of 2^60 possible ones for the weakest password that `make up` generates.
WRONG_PASSWORD_RATE = Rate(10, 1 / 6)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    is_logged: bool = False  #: that it is empty


class RateLimiter:
    """Thread-safe."""

    def __init__(
        self,
        name: str,
        rate: Rate,
        clock: Callable[[], float] = time.monotonic,
        max_addresses: int = MAX_ADDRESSES,
    ) -> None:
        """`name` of what is limited, for the log."""
        self._name = name
        self._rate = rate
        self._clock = clock
        self._max_addresses = max_addresses
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str) -> float:
        """Takes a token and returns 0; where none is left, returns the seconds until there is one."""
        with self._lock:
            bucket = self._fill_bucket(address)
            if bucket.tokens < 1:
                return self._seconds_until_token(bucket, address)
            bucket.tokens -= 1
            return 0.0

    def wait_seconds(self, address: str) -> float:
        """What `take` would return; takes nothing."""
        with self._lock:
            bucket = self._fill_bucket(address)
            return 0.0 if bucket.tokens >= 1 else self._seconds_until_token(bucket, address)

    def __len__(self) -> int:
        """Addresses in memory."""
        return len(self._buckets)

    def _fill_bucket(self, address: str) -> _Bucket:
        now, burst = self._clock(), self._rate.burst
        bucket = self._buckets.setdefault(address, _Bucket(burst, now))
        self._buckets.move_to_end(address)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        bucket.tokens = min(burst, bucket.tokens + (now - bucket.filled_at) * self._rate.per_second)
        bucket.filled_at = now
        bucket.is_logged &= bucket.tokens < burst / 2
        return bucket

    def _seconds_until_token(self, bucket: _Bucket, address: str) -> float:
        if not bucket.is_logged:  # one line for a flood, not one for each request
            bucket.is_logged = True
            log.warning("rate limit reached", limit=self._name, address=address)
        return (1 - bucket.tokens) / self._rate.per_second


def limit_rate(view: View, limiter: RateLimiter) -> View:
    """The view; above the limit, a page with status 429 and a Retry-After."""

    @wraps(view)
    def check(*args: Any, **kwargs: Any) -> Response:
        if wait_seconds := limiter.take(client_address(request)):
            raise AbortWithPage(RATE_LIMITED, math.ceil(wait_seconds))
        return view(*args, **kwargs)

    return check


def client_address(request: Request) -> str:
    """The address that limits count by: for IPv6 the network of the household.

    With TRUSTED_PROXIES, ProxyFix has replaced the peer's address by the client's (web/app.py). What a proxy sends
    instead of an IP address counts as it is, cut off.
    """
    peer = request.remote_addr or ""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer[:MAX_ADDRESS_CHARACTERS]
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((address, IPV6_PREFIX_BITS), strict=False))
    return str(address)
