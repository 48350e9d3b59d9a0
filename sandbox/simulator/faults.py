"""Faults on order: what goes wrong, for whom, how often; each kind with what it does to an answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sandbox.simulator.answers import REFUSALS, Answer, html, http_error, refusal
from sandbox.simulator.behaviour import Behaviour, seconds

WHERES = ("token", "introspect", "revoke", "uninstall", "api", "all")
GRANTS = ("refresh", "code", "any")
HTTP_ERRORS = range(400, 600)

#: Two mebibytes, as a field of an otherwise perfect reply.
_HUGE = 2 * 1024 * 1024
_NONSENSE = {
    "access_token": 12345,
    "refresh_token": ["not", "a", "string"],
    "expires_in": "soon",
    "hub_id": "sixty-two thousand",
    "scopes": "oauth",
    "active": "yes",
}


class BadFault(Exception):
    """A fault that cannot be: the message says what it should look like."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as faults and statistics care."""

    where: str
    grant: str | None = None  #: of a token call: refresh or code
    hub_id: int | None = None  #: None where the request named none that is known


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    where: str = "token"
    grant: str = "any"
    hub_id: int | None = None  #: None: all
    times: int | None = None  #: how many calls are still to be hit; None: for ever
    probability: float = 1.0
    retry_after: str | None = None  #: the header as it is sent; +3: the date in three seconds, by the simulator's clock
    seconds: float | None = None  #: the answer waits so long; of drip, the gap between two bytes
    id: int = 0
    hits: int = 0

    def concerns(self, call: Call) -> bool:
        return (
            self.where in {call.where, "all"}
            and self.grant in {"any", call.grant}
            and (self.hub_id is None or self.hub_id == call.hub_id)
            and self.times != 0
        )

    @property
    def delay(self) -> float:
        """Seconds by which the whole answer comes later."""
        if self.kind == "drip":
            return 0.0
        return self.seconds if self.seconds is not None else (5.0 if self.kind == "slow" else 0.0)

    @property
    def gap(self) -> float:
        """Seconds between two bytes of a dripping answer."""
        return 0.5 if self.seconds is None else self.seconds


class FaultBook:
    """The standing orders, oldest first: the first that fits a call hits it, alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._last = 0

    def order(self, wish: Mapping[str, Any]) -> Fault:
        """Raises BadFault."""
        fault = _checked(wish)
        with self._lock:
            self._last += 1
            fault = replace(fault, id=self._last)
            self._faults.append(fault)
        return fault

    def take(self, call: Call) -> Fault | None:
        """The fault that hits this call, and counts as one of its times."""
        if not self._faults:
            return None
        with self._lock:
            for place, fault in enumerate(self._faults):
                if fault.concerns(call) and random.random() < fault.probability:
                    left = None if fault.times is None else fault.times - 1
                    self._faults[place] = replace(fault, times=left, hits=fault.hits + 1)
                    return fault
        return None

    def clear(self, fault_id: int | None = None) -> None:
        """One, or all."""
        with self._lock:
            self._faults = [f for f in self._faults if fault_id is not None and f.id != fault_id]

    def listed(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._faults]


def instead(fault: Fault, knobs: Behaviour) -> Answer | None:
    """The answer of a fault that comes before the work is done; None if the work is done first."""
    if fault.kind.isdigit():
        return http_error(int(fault.kind), fault.retry_after)
    if (status := fault.kind.upper()) in REFUSALS:
        return refusal(status, legacy=knobs.legacy_errors, bad_client_id_error=knobs.bad_client_id_error)
    made = _INSTEAD.get(fault.kind)
    return made() if made else None


def spoiled(fault: Fault, answer: Answer) -> Answer:
    """The answer to work that was done, as the fault leaves it."""
    spoil = _SPOILERS.get(fault.kind)
    return replace(spoil(answer), outcome=fault.kind) if spoil else answer


def _foreign_token() -> Answer:
    text = "refresh token was not issued to this client"
    refused = refusal("BAD_REFRESH_TOKEN").with_fields(error_description=text, message=text)
    return replace(refused, outcome="foreign_refresh_token")


def _migration_under_400() -> Answer:
    return replace(http_error(477), status=400, outcome="migration_as_400")


def _empty() -> Answer:
    return Answer(200, outcome="empty_200")


def _no_grant() -> Answer:
    return Answer(200, b"{}", outcome="no_grant")


def _half(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def _padded(answer: Answer) -> Answer:
    return answer.with_fields(padding="x" * _HUGE)


def _mistyped(answer: Answer) -> Answer:
    return answer.with_fields(**{name: _NONSENSE[name] for name in answer.fields() if name in _NONSENSE})


def _in_the_past(answer: Answer) -> Answer:
    return answer.with_fields(expires_in=-60)


def _of_another(answer: Answer) -> Answer:
    hub_id = answer.fields().get("hub_id")
    return answer if hub_id is None else answer.with_fields(hub_id=hub_id + 1)


_INSTEAD: dict[str, Callable[[], Answer]] = {
    "foreign_refresh_token": _foreign_token,
    "migration_as_400": _migration_under_400,
    "empty_200": _empty,
    "no_grant": _no_grant,
    "html_200": lambda: html(200),
    "html_403": lambda: html(403),
    "html_503": lambda: html(503),
}
_SPOILERS: dict[str, Callable[[Answer], Answer]] = {
    "truncated": _half,
    "huge": _padded,
    "wrong_types": _mistyped,
    "negative_expires_in": _in_the_past,
    "wrong_hub": _of_another,
}
#: What happens to the connection instead of, or after, the work; see delivery.py.
_ON_THE_WIRE = ("slow", "drip", "cut", "lost", "reset")
KINDS = (*(status.lower() for status in REFUSALS), *_INSTEAD, *_SPOILERS, *_ON_THE_WIRE)


def _checked(wish: Mapping[str, Any]) -> Fault:
    known = set(Fault.__dataclass_fields__) - {"id", "hits"}
    if unknown := sorted(wish.keys() - known):
        raise BadFault(f"no such field: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    kind = str(wish.get("kind", ""))
    if kind not in KINDS and not (kind.isdigit() and int(kind) in HTTP_ERRORS):
        raise BadFault(f"kind: one of {', '.join(KINDS)}, or an HTTP status from 400 to 599")
    if wish.get("where", "token") not in WHERES or wish.get("grant", "any") not in GRANTS:
        raise BadFault(f"where: one of {', '.join(WHERES)}; grant: one of {', '.join(GRANTS)}")
    return _with_numbers(Fault(**{**wish, "kind": kind}))


def _with_numbers(fault: Fault) -> Fault:
    for name, number in (("hub_id", fault.hub_id), ("times", fault.times)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise BadFault(f"{name}: a whole number from 1, or null for every one")
    chance: Any = fault.probability
    if isinstance(chance, bool) or not isinstance(chance, int | float) or not 0 <= chance <= 1:
        raise BadFault("probability: a number from 0 to 1")
    try:
        pause = None if fault.seconds is None else seconds(fault.seconds)
    except ValueError as error:
        raise BadFault(f"seconds: {error}") from None
    retry_after = None if fault.retry_after is None else str(fault.retry_after)
    if retry_after is not None and not retry_after.isprintable():
        raise BadFault("retry_after: seconds, a date or rubbish, on one line")
    return replace(fault, seconds=pause, retry_after=retry_after)
