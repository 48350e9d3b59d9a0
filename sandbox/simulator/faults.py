"""Faults on request: what goes wrong, for which calls, how often; each kind with what it does to an answer."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sandbox.simulator.answers import REFUSALS, Answer, make_html, make_http_error, make_missing_scopes, make_refusal
from sandbox.simulator.behaviour import Behaviour, parse_seconds
from sandbox.simulator.records import Installation

ENDPOINTS = (
    "token",
    "introspect",
    "revoke",
    "uninstall",
    "api",
    "account_info",
    "subscriptions",
    "journal",
    "journal_file",
    "all",
)
GRANTS = ("refresh", "code", "client", "any")
HTTP_ERRORS = range(400, 600)
SLOW_SECONDS = 5.0
DRIP_GAP_SECONDS = 0.5
#: Added as one field to an otherwise valid reply.
PADDING_CHARACTERS = 2 * 1024 * 1024
WRONG_TYPES = {
    "access_token": 12345,
    "refresh_token": ["not", "a", "string"],
    "expires_in": "soon",
    "hub_id": "sixty-two thousand",
    "scopes": "oauth",
    "active": "yes",
    "portalName": {"name": "Acme"},
    "accountType": 7,
    "dataHostingLocation": ["eu1"],
    "url": None,
    "currentOffset": 12345,
}


class InvalidFault(Exception):
    """An unknown field or an invalid value: the message describes a valid one."""


@dataclass(frozen=True, slots=True)
class Call:
    """What faults and statistics need to know of a request."""

    endpoint: str
    grant: str | None = None  #: of a token call: refresh, code or client (credentials)
    client_id: str | None = None  #: of the app that calls; None where it is not known
    owner: Installation | None = None  #: of the code or token in the request; None where it contains none

    @property
    def hub_id(self) -> int | None:
        return None if self.owner is None else self.owner.hub_id


@dataclass(frozen=True, slots=True)
class Fault:
    """The fields are those of the control interface."""

    kind: str
    where: str = "token"  #: one of ENDPOINTS
    grant: str = "any"  #: one of GRANTS
    hub_id: int | None = None  #: None: all
    client_id: str | None = None  #: only calls of this app; None: all
    times: int | None = None  #: calls that it still applies to; None: no limit
    probability: float = 1.0
    retry_after: str | None = None  #: the header as it is sent; +3: the date in three seconds, by the simulator's clock
    seconds: float | None = None  #: delay of the answer; of drip, the gap between two bytes
    id: int = 0
    hits: int = 0

    def matches(self, call: Call) -> bool:
        return (
            self.where in {call.endpoint, "all"}
            and self.grant in {"any", call.grant}
            and self.hub_id in {None, call.hub_id}
            and self.client_id in {None, call.client_id}
            and self.times != 0
        )

    @property
    def delay_seconds(self) -> float:
        """Before the whole answer."""
        if self.kind == "drip":
            return 0.0
        return self.seconds if self.seconds is not None else (SLOW_SECONDS if self.kind == "slow" else 0.0)

    @property
    def gap_seconds(self) -> float:
        """Between two bytes of a dripping answer."""
        return DRIP_GAP_SECONDS if self.seconds is None else self.seconds


class Faults:
    """The requested faults, oldest first. Only the first that matches a call applies to it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._last_id = 0

    def add(self, fields: Mapping[str, Any]) -> Fault:
        """Raises InvalidFault."""
        fault = _parse_fault(fields)
        with self._lock:
            self._last_id += 1
            fault = replace(fault, id=self._last_id)
            self._faults.append(fault)
        return fault

    def take(self, call: Call) -> Fault | None:
        """The fault that applies to this call; it is counted as one of its times."""
        if not self._faults:
            return None
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.matches(call) and random.random() < fault.probability:
                    times_left = None if fault.times is None else fault.times - 1
                    self._faults[index] = replace(fault, times=times_left, hits=fault.hits + 1)
                    return fault
        return None

    def clear(self, fault_id: int | None = None) -> None:
        """One, or all."""
        with self._lock:
            self._faults = [f for f in self._faults if fault_id is not None and f.id != fault_id]

    def is_requested(self, fault_id: int) -> bool:
        """Whether it is not cleared yet."""
        return any(fault.id == fault_id for fault in self._faults)

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self._faults]


def make_replacement(fault: Fault, behaviour: Behaviour) -> Answer | None:
    """The answer of a fault that prevents the work; None where the work is done first."""
    if fault.kind.isdigit():
        return make_http_error(int(fault.kind), fault.retry_after)
    if (status := fault.kind.upper()) in REFUSALS:
        return make_refusal(status, legacy=behaviour.legacy_errors, bad_client_id_error=behaviour.bad_client_id_error)
    make = _REPLACEMENTS.get(fault.kind)
    return make() if make else None


def corrupt(fault: Fault, answer: Answer) -> Answer:
    """The answer to work that was done, changed by the fault; unchanged where the fault concerns the connection."""
    change = _CORRUPTIONS.get(fault.kind)
    return replace(change(answer), outcome=fault.kind) if change else answer


def _make_foreign_token_refusal() -> Answer:
    text = "refresh token was not issued to this client"
    answer = make_refusal("BAD_REFRESH_TOKEN").with_fields(error_description=text, message=text)
    return replace(answer, outcome="foreign_refresh_token")


def _cut_in_half(answer: Answer) -> Answer:
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def _change_types(answer: Answer) -> Answer:
    return answer.with_fields(**{name: WRONG_TYPES[name] for name in answer.parse_fields() if name in WRONG_TYPES})


def _change_forms(answer: Answer) -> Answer:
    """Other types with the same meaning."""
    fields = answer.parse_fields()
    odd: dict[str, Callable[[Any], Any]] = {
        "expires_in": str,
        "hub_id": str,
        "scopes": lambda scopes: [*scopes, None, 7],
    }
    return answer.with_fields(**{name: change(fields[name]) for name, change in odd.items() if name in fields})


def _change_hub(answer: Answer) -> Answer:
    hub_id = answer.parse_fields().get("hub_id")
    return answer if hub_id is None else answer.with_fields(hub_id=hub_id + 1)


_REPLACEMENTS: dict[str, Callable[[], Answer]] = {
    "foreign_refresh_token": _make_foreign_token_refusal,
    "migration_as_400": lambda: replace(make_http_error(477), status=400, outcome="migration_as_400"),
    "empty_200": lambda: Answer(200, outcome="empty_200"),
    "no_grant": lambda: Answer(200, b"{}", outcome="no_grant"),
    "html_200": lambda: make_html(200),
    "html_403": lambda: make_html(403),
    "html_503": lambda: make_html(503),
    "missing_scopes": make_missing_scopes,
}
_CORRUPTIONS: dict[str, Callable[[Answer], Answer]] = {
    "truncated": _cut_in_half,
    "huge": lambda answer: answer.with_fields(padding="x" * PADDING_CHARACTERS),
    "wrong_types": _change_types,
    "odd_forms": _change_forms,
    "no_access_token": lambda answer: answer.with_fields(access_token=None),
    "negative_expires_in": lambda answer: answer.with_fields(expires_in=-60),
    "wrong_hub": _change_hub,
}
#: What happens to the connection instead of, or after, the work; see delivery.py.
_CONNECTION_FAULTS = ("slow", "held", "drip", "cut", "lost", "reset")
KINDS = (*(status.lower() for status in REFUSALS), *_REPLACEMENTS, *_CORRUPTIONS, *_CONNECTION_FAULTS)


def _parse_fault(fields: Mapping[str, Any]) -> Fault:
    valid_names = set(Fault.__dataclass_fields__) - {"id", "hits"}
    if unknown := sorted(fields.keys() - valid_names):
        raise InvalidFault(f"no such field: {', '.join(unknown)}; there are {', '.join(sorted(valid_names))}")
    kind = str(fields.get("kind", ""))
    if kind not in KINDS and not (kind.isdigit() and int(kind) in HTTP_ERRORS):
        raise InvalidFault(f"kind: one of {', '.join(KINDS)}, or an HTTP status from 400 to 599")
    if fields.get("where", "token") not in ENDPOINTS or fields.get("grant", "any") not in GRANTS:
        raise InvalidFault(f"where: one of {', '.join(ENDPOINTS)}; grant: one of {', '.join(GRANTS)}")
    fault = Fault(**{**fields, "kind": kind})
    if fault.client_id is not None and not isinstance(fault.client_id, str):
        raise InvalidFault("client_id: a text, or null for every app")
    for name, number in (("hub_id", fault.hub_id), ("times", fault.times)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise InvalidFault(f"{name}: a whole number from 1, or null for every one")
    probability: Any = fault.probability
    if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability <= 1:
        raise InvalidFault("probability: a number from 0 to 1")
    try:
        seconds = None if fault.seconds is None else parse_seconds(fault.seconds)
    except ValueError as error:
        raise InvalidFault(f"seconds: {error}") from None
    retry_after = None if fault.retry_after is None else str(fault.retry_after)
    if retry_after is not None and not retry_after.isprintable():
        raise InvalidFault("retry_after: seconds, a date or rubbish, on one line")
    return replace(fault, seconds=seconds, retry_after=retry_after)
