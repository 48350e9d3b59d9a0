"""How often one address may ask: a bucket of tokens for each, in the memory of this process."""

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

from web import problems
from web.problems import AbortWithPage

log = structlog.get_logger(__name__)

#: Addresses that are remembered; those that asked longest ago are forgotten first.
MOST_ADDRESSES = 10_000
#: Bits of an IPv6 address that one household or server is given, at the least.
IPV6_PREFIX_BITS = 64

View = Callable[..., Response]


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and so many a second in the long run; of one address, in each process of gunicorn."""

    burst: int
    per_second: float


#: /install, and the callback: an office behind one address comes nowhere near. A callback costs a call to HubSpot.
HANDSHAKES = Rate(120, 20.0)
#: Wrong passwords: 10 a minute are 14,400 a day, of 2^60 that the poorest password that we make has.
WRONG_PASSWORDS = Rate(10, 1 / 6)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float
    told: bool = False  #: that it ran dry, in the log


class RateLimiter:
    """Threads may share one."""

    def __init__(
        self, what: str, allowance: Rate, clock: Callable[[], float] = time.monotonic, most: int = MOST_ADDRESSES
    ) -> None:
        """`what` is refused, for the log."""
        self._what = what
        self._allowance = allowance
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, address: str) -> float:
        """0 where it may; else the seconds to wait, and nothing is taken."""
        with self._lock:
            bucket = self._filled(address)
            if bucket.tokens >= 1:
                bucket.tokens -= 1
                return 0.0
            return self._wait(bucket, address)

    def wait(self, address: str) -> float:
        """The same, and nothing is taken in either case."""
        with self._lock:
            bucket = self._filled(address)
            return 0.0 if bucket.tokens >= 1 else self._wait(bucket, address)

    def __len__(self) -> int:
        return len(self._buckets)

    def _filled(self, address: str) -> _Bucket:
        now, most = self._clock(), self._allowance.burst
        bucket = self._buckets.setdefault(address, _Bucket(most, now))
        self._buckets.move_to_end(address)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        bucket.tokens = min(most, bucket.tokens + (now - bucket.filled_at) * self._allowance.per_second)
        bucket.filled_at = now
        bucket.told &= bucket.tokens < most / 2
        return bucket

    def _wait(self, bucket: _Bucket, address: str) -> float:
        if not bucket.told:  # once, not at each of a flood
            bucket.told = True
            log.warning("an address asks too often: it is told to wait", what=self._what, address=address)
        return (1 - bucket.tokens) / self._allowance.per_second


class Addresses:
    """Who asks: the peer; or whom the proxies in front name, where TRUSTED_PROXIES says how many there are."""

    def __init__(self, proxies: int) -> None:
        self._proxies = proxies

    def of(self, request: Request) -> str:
        peer = request.remote_addr or ""
        if not self._proxies:
            return _household(peer)
        # Each proxy adds whom it was asked by at the end; what stands before theirs is the client's own invention.
        told = ",".join(request.headers.getlist("X-Forwarded-For")).split(",")
        return _household(told[-self._proxies].strip()) if len(told) >= self._proxies else _household(peer)


def rate_limited(view: View, buckets: RateLimiter, addresses: Addresses) -> View:
    """The view, for who does not ask too often; others are told when to come back."""

    @wraps(view)
    def hold(*args: Any, **kwargs: Any) -> Response:
        if wait := buckets.take(addresses.of(request)):
            raise AbortWithPage(problems.TOO_OFTEN, math.ceil(wait))
        return view(*args, **kwargs)

    return hold


def _household(address: str) -> str:
    """What is no address at all stands for itself, shortened: a proxy of a strange kind."""
    try:
        found = ip_address(address)
    except ValueError:
        return address[:45]
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or ip_network((found, IPV6_PREFIX_BITS), strict=False))
    return str(found)
