"""What the simulator was asked, exactly: by endpoint and outcome, by account, by second, and what overlapped.

A refresh is in flight from the moment its request has been read until the moment before its answer's last bytes
are sent, or until its client has hung up, whichever is first. Whether a client has hung up is looked at when the
next refresh of that account comes in, so a call that was given up and then repeated is no overlap.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sandbox.simulator.faults import Call

#: Seconds of history, and overlaps told in full.
HISTORY, TOLD = 120, 1000


class Line(Protocol):
    """The connection by which a call came."""

    def gone(self) -> bool: ...


@dataclass(eq=False, slots=True)
class Flight:
    """A call that has not been answered yet."""

    call: Call
    line: Line
    began: float = field(default_factory=time.monotonic)
    landed: bool = False

    @property
    def is_refresh(self) -> bool:
        return self.call.where == "token" and self.call.grant == "refresh" and self.call.hub_id is not None


@dataclass(slots=True)
class _Hub:
    refreshes: int = 0
    exchanges: int = 0
    most_in_flight: int = 0


class Counters:
    """Thread-safe. `clock` gives seconds since 1970, to name seconds and moments."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._flights: dict[int, list[Flight]] = defaultdict(list)
        self._in_flight = 0
        self._begin()

    def _begin(self) -> None:
        self._calls: dict[str, Counter[str]] = defaultdict(Counter)
        self._hubs: dict[int, _Hub] = defaultdict(_Hub)
        self._seconds: OrderedDict[int, Counter[str]] = OrderedDict()
        self._most_in_flight = self._in_flight
        self._overlaps = 0
        self._told: list[dict[str, Any]] = []

    def reset(self) -> None:
        """From zero, but what is in flight stays so: an overlap with it would still be seen."""
        with self._lock:
            self._begin()
            for hub_id, flights in self._flights.items():
                self._hubs[hub_id].most_in_flight = len(flights)

    def took_off(self, call: Call, line: Line) -> Flight:
        flight = Flight(call, line)
        with self._lock:
            self._in_flight += 1
            self._most_in_flight = max(self._most_in_flight, self._in_flight)
            self._count_second(call.where)
            if flight.is_refresh:
                self._refresh_began(flight)
            elif call.grant == "code" and call.hub_id is not None:
                self._hubs[call.hub_id].exchanges += 1
        return flight

    def landed(self, flight: Flight, outcome: str) -> None:
        """Answered, or given up by one side. Only the first word counts."""
        with self._lock:
            self._land(flight, outcome)

    def _land(self, flight: Flight, outcome: str) -> None:
        if flight.landed:
            return
        flight.landed = True
        self._in_flight -= 1
        name = flight.call.where if flight.call.grant is None else f"{flight.call.where}/{flight.call.grant}"
        self._calls[name][outcome] += 1
        if flight.is_refresh and flight.call.hub_id is not None:
            flights = self._flights[flight.call.hub_id]
            flights.remove(flight)
            if not flights:
                del self._flights[flight.call.hub_id]

    def _refresh_began(self, flight: Flight) -> None:
        hub_id = flight.call.hub_id or 0
        for other in tuple(self._flights.get(hub_id, ())):
            if other.line.gone():
                self._land(other, "client_gone")
        flights = self._flights[hub_id]
        flights.append(flight)
        hub = self._hubs[hub_id]
        hub.refreshes += 1
        hub.most_in_flight = max(hub.most_in_flight, len(flights))
        if len(flights) > 1:
            self._tell(hub_id, flights)

    def _tell(self, hub_id: int, flights: list[Flight]) -> None:
        self._overlaps += 1
        if len(self._told) < TOLD:
            now = time.monotonic()
            ages = [round(now - flight.began, 4) for flight in flights[:-1]]
            self._told.append({"hub_id": hub_id, "at": self._clock(), "others_began_seconds_ago": ages})

    def _count_second(self, where: str) -> None:
        second = int(self._clock())
        if second not in self._seconds:
            self._seconds[second] = Counter()
            while len(self._seconds) > HISTORY:
                self._seconds.popitem(last=False)
        self._seconds[second]["token" if where == "token" else "other"] += 1

    def shown(self, *, by_hub: bool = True) -> dict[str, Any]:
        """As JSON: see docs of GET /_sim/stats in control_api.py."""
        with self._lock:
            hubs = {str(hub_id): self._hub(hub_id) for hub_id in self._hubs} if by_hub else {}
            oldest = self._clock() - HISTORY
            return {
                "calls": {name: dict(outcomes) for name, outcomes in self._calls.items()},
                "in_flight": self._in_flight,
                "most_in_flight": self._most_in_flight,
                "most_refreshes_of_one_hub": max((h.most_in_flight for h in self._hubs.values()), default=0),
                "violations": self._overlaps,
                "violations_told": list(self._told),
                "per_second": [{"at": s, **count} for s, count in self._seconds.items() if s > oldest],
                "by_hub": hubs,
            }

    def _hub(self, hub_id: int) -> dict[str, int]:
        hub = self._hubs[hub_id]
        return {
            "refreshes": hub.refreshes,
            "exchanges": hub.exchanges,
            "in_flight": len(self._flights.get(hub_id, ())),
            "most_in_flight": hub.most_in_flight,
        }
