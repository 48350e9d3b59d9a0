"""How often one address may send requests: a token bucket for each, in the memory of this process."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import structlog
from flask import Request, Response, request

from web.error_pages import RATE_LIMITED, AbortWithPage

log = structlog.get_logger(__name__)

#: Addresses in memory at once; the one whose last request is oldest is dropped first.
MAX_ADDRESSES = 10_000
#: A household or a server has at least all IPv6 addresses that share this many leading bits.
IPV6_PREFIX_BITS = 64
#: The most that one customer of a provider is given.
IPV6_CUSTOMER_PREFIX_BITS = 48

#: With or without a port.
_BRACKETED_OR_IPV4 = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>[0-9.]+))(?::[0-9]{1,5})?")

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


#: Until a page above the limit reloads itself: a crowd that waits must not fill its limit by that.
MIN_REFRESH_SECONDS = 5


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

    def tokens_left(self, address: str) -> float:
        with self._lock:
            return self._fill_bucket(address).tokens

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
            wait_seconds = math.ceil(wait_seconds)
            raise AbortWithPage(RATE_LIMITED, wait_seconds, refresh_seconds=max(wait_seconds, MIN_REFRESH_SECONDS))
        return view(*args, **kwargs)

    return check


def client_address(request: Request) -> str:
    """The address that limits count by: for IPv6 the network of the household.

    With TRUSTED_PROXIES, ProxyFix has replaced the peer's address by what the proxies say of the client (web/app.py).
    Where that is no address, the peer's own counts: a client cannot escape its count by what a proxy passes on.
    """
    return _client_network(request, IPV6_PREFIX_BITS)


def client_network(request: Request) -> str:
    """As `client_address`, but for IPv6 all networks that one customer of a provider may have count as one."""
    return _client_network(request, IPV6_CUSTOMER_PREFIX_BITS)


def _client_network(request: Request, ipv6_prefix_bits: int) -> str:
    peer = request.environ.get("werkzeug.proxy_fix.orig", {}).get("REMOTE_ADDR")
    address = _parse_address(request.remote_addr or "") or _parse_address(peer or "")
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or ip_network((int(address), ipv6_prefix_bits), strict=False))
    return str(address or "")


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Some proxies write the client's port, too: `192.0.2.1:5060`, `[2001:db8::1]:5060`."""
    host = _BRACKETED_OR_IPV4.fullmatch(text.strip())
    try:
        return ip_address(host["v6"] or host["v4"] if host else text.strip())
    except ValueError:
        return None
