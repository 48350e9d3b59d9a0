"""Exact statistics of the calls: by endpoint and outcome, app, account and second, and refreshes that overlapped.

Only refreshes with one grant, of the same app, account and user, can overlap. A refresh is in flight from when its
request has been read until just before the last bytes of its answer are sent, or until its client has closed the
connection, whichever is first. Whether a client has closed it is checked when the next refresh with that grant comes
in, so a call that was given up and then repeated is no overlap.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from sandbox.simulator.connection import ClientConnection
from sandbox.simulator.faults import Call
from sandbox.simulator.records import Installation

HISTORY_SECONDS = 120
MAX_OVERLAP_DETAILS = 1000


@dataclass(eq=False, slots=True)
class PendingCall:
    """A call that has not been answered yet."""

    call: Call
    connection: ClientConnection
    started_at: float = field(default_factory=time.monotonic)
    is_finished: bool = False
    is_before_reset: bool = False  #: the counters were reset since it began: its outcome is not counted

    @property
    def refreshed(self) -> Installation | None:
        """None where it is not a refresh of a known installation."""
        return self.call.owner if self.call.endpoint == "token" and self.call.grant == "refresh" else None


@dataclass(slots=True)
class _HubCounters:
    refreshes: int = 0
    exchanges: int = 0
    most_in_flight: int = 0


class Counters:
    """Thread-safe. `clock` gives seconds since 1970, for the times in the statistics."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pending_refreshes: dict[Installation, list[PendingCall]] = defaultdict(list)
        self._pending: set[PendingCall] = set()
        self._most_in_flight = 0
        self._clear()

    def reset(self) -> None:
        """To zero. Calls in flight stay so: an overlap with one of them is still counted, but not their outcome."""
        with self._lock:
            for call in tuple(self._pending):
                call.is_before_reset = True
                if call.connection.is_closed():
                    self._finish(call, "client_gone")
            self._clear()
            for installation, pending in self._pending_refreshes.items():
                hub = self._hubs[installation.hub_id]
                hub.most_in_flight = max(hub.most_in_flight, len(pending))

    def start_call(self, call: Call, connection: ClientConnection) -> PendingCall:
        pending = PendingCall(call, connection)
        with self._lock:
            self._pending.add(pending)
            self._most_in_flight = max(self._most_in_flight, len(self._pending))
            self._count_second(call.endpoint)
            if pending.refreshed is not None:
                self._start_refresh(pending, pending.refreshed)
            elif call.grant == "code" and call.hub_id is not None:
                self._hubs[call.hub_id].exchanges += 1
        return pending

    def finish_call(self, pending: PendingCall, outcome: str) -> None:
        """The call was answered, or given up by one side. Only the first outcome counts."""
        with self._lock:
            self._finish(pending, outcome)

    def to_json(self, *, by_hub: bool = True) -> dict[str, Any]:
        """As GET /_sim/stats answers."""
        with self._lock:
            oldest = self._clock() - HISTORY_SECONDS
            return {
                "calls": {name: dict(outcomes) for name, outcomes in self._calls.items()},
                "calls_by_app": {
                    client_id: {name: dict(outcomes) for name, outcomes in calls.items()}
                    for client_id, calls in self._calls_by_app.items()
                },
                "in_flight": len(self._pending),
                "most_in_flight": self._most_in_flight,
                "most_refreshes_of_one_hub": max((hub.most_in_flight for hub in self._hubs.values()), default=0),
                "violations": self._overlaps,
                "violation_details": list(self._overlap_details),
                "per_second": [{"at": s, **count} for s, count in self._seconds.items() if s > oldest],
                "by_hub": self._hubs_to_json() if by_hub else {},
            }

    def _clear(self) -> None:
        self._calls: dict[str, Counter[str]] = defaultdict(Counter)
        self._calls_by_app: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self._hubs: dict[int, _HubCounters] = defaultdict(_HubCounters)
        self._seconds: OrderedDict[int, Counter[str]] = OrderedDict()
        self._most_in_flight = len(self._pending)
        self._overlaps = 0
        self._overlap_details: list[dict[str, Any]] = []

    def _count_second(self, endpoint: str) -> None:
        second = int(self._clock())
        if second not in self._seconds:
            self._seconds[second] = Counter()
            while len(self._seconds) > HISTORY_SECONDS:
                self._seconds.popitem(last=False)
        self._seconds[second]["token" if endpoint == "token" else "other"] += 1

    def _start_refresh(self, pending: PendingCall, installation: Installation) -> None:
        for other in tuple(self._pending_refreshes.get(installation, ())):
            if other.connection.is_closed():
                self._finish(other, "client_gone")
        same_grant = self._pending_refreshes[installation]
        same_grant.append(pending)
        hub = self._hubs[installation.hub_id]
        hub.refreshes += 1
        hub.most_in_flight = max(hub.most_in_flight, len(same_grant))
        if len(same_grant) == 1:
            return
        self._overlaps += 1
        if len(self._overlap_details) < MAX_OVERLAP_DETAILS:
            now = time.monotonic()
            ages = [round(now - other.started_at, 4) for other in same_grant[:-1]]
            details = {**asdict(installation), "at": self._clock(), "others_began_seconds_ago": ages}
            self._overlap_details.append(details)

    def _finish(self, pending: PendingCall, outcome: str) -> None:
        if pending.is_finished:
            return
        pending.is_finished = True
        self._pending.discard(pending)
        call, installation = pending.call, pending.refreshed
        if not pending.is_before_reset:
            name = call.endpoint if call.grant is None else f"{call.endpoint}/{call.grant}"
            self._calls[name][outcome] += 1
            if call.client_id is not None:
                self._calls_by_app[call.client_id][name][outcome] += 1
        if installation is not None:
            self._pending_refreshes[installation].remove(pending)
            if not self._pending_refreshes[installation]:
                del self._pending_refreshes[installation]

    def _hubs_to_json(self) -> dict[str, dict[str, int]]:
        in_flight: Counter[int] = Counter()
        for installation, pending in self._pending_refreshes.items():
            in_flight[installation.hub_id] += len(pending)
        return {
            str(hub_id): {
                "refreshes": hub.refreshes,
                "exchanges": hub.exchanges,
                "in_flight": in_flight[hub_id],
                "most_in_flight": hub.most_in_flight,
            }
            for hub_id, hub in self._hubs.items()
        }
