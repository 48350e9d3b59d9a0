"""HubSpot in the test's own process: one double of the client, with answers that a test sets and calls that it reads.

Over HTTP the simulator plays HubSpot (tests/support/simulator.py).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from shared.domain.account import AccountDetails
from shared.domain.errors import CodeRejected, ProviderError
from shared.domain.grant import ExchangedGrant, Grant, Introspection
from tests.support.builders import grant

T = TypeVar("T")
HANG_SECONDS = 30
CALL_THREAD = "call-of-a-double"


class StepsByCalls:
    """Offers a double's blocking methods as steps, as HubSpot's client does, and runs each step in a thread."""

    def refresh_steps(self, *arguments: Any) -> Generator[Callable[[], Any], Any, Any]:
        return (yield partial(self.refresh, *arguments))  # type: ignore[attr-defined]

    def introspect_steps(self, *arguments: Any) -> Generator[Callable[[], Any], Any, Any]:
        return (yield partial(self.introspect, *arguments))  # type: ignore[attr-defined]

    def run(self, steps: Generator[Callable[[], Any], Any, T]) -> T:
        resume, value = steps.send, None
        while True:
            try:
                call = resume(value)
            except StopIteration as end:
                return end.value
            try:
                resume, value = steps.send, call()
            except ProviderError as error:
                resume, value = steps.throw, error

    def start(self, steps: Any, on_result: Callable[[Any], None], on_error: Callable[[Exception], None]) -> None:
        def run() -> None:
            try:
                result = self.run(steps)
            except Exception as error:  # noqa: BLE001  as the product: whatever it is
                on_error(error)
            else:
                on_result(result)

        threading.Thread(target=run, name=CALL_THREAD, daemon=True).start()


def wait_for_calls() -> None:
    """Until no call runs any more that a double has started: it could log in a later test."""
    for thread in threading.enumerate():
        if thread.name == CALL_THREAD:
            thread.join(2 * HANG_SECONDS)


@dataclass
class ScriptedHubSpot(StepsByCalls):
    """Has the methods of `shared.hubspot.client.HubSpot`; threads may share it. An answer that is an error is raised.

    `refresh_answer` None: each refresh brings a new grant whose access token is named for the refresh token.
    """

    refresh_answer: Grant | ProviderError | None = field(default_factory=grant)
    introspect_answer: Introspection | ProviderError = field(default_factory=lambda: Introspection(active=False))
    account_answer: AccountDetails | ProviderError = field(default_factory=AccountDetails)
    exchange_error: ProviderError | None = None
    grants: dict[str, Grant] = field(default_factory=dict)  #: by code; each is handed out once
    client_id: str = "app"
    error_by_token: dict[str, ProviderError] = field(default_factory=dict)  #: for refreshes of that refresh token
    answer_seconds: float = 0.0
    during_call: Callable[[], object] = lambda: None  #: in an uninstall or a revocation, before it ends

    calls: list[str] = field(default_factory=list)  #: names of methods, in their order
    exchanged: list[str] = field(default_factory=list)  #: codes
    redirect_uris: list[str | None] = field(default_factory=list)  #: of these codes
    introspected: list[tuple[str, str]] = field(default_factory=list)  #: kind and token
    introspect_barrier: threading.Barrier | None = None  #: no introspection ends before so many are in flight
    refreshes: Counter[str] = field(default_factory=Counter)  #: calls by refresh token
    in_flight: Counter[str] = field(default_factory=Counter)  #: refreshes that have not ended, by refresh token
    max_in_flight: int = 0
    gate: threading.Event = field(default_factory=threading.Event)  #: while it is cleared no refresh ends
    remaining_answers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1_000_000))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gate.set()

    def authorize_url(self, state: str, hub_id: int | None = None, conditional_scopes: Sequence[str] = ()) -> str:
        path = f"/oauth/{hub_id}/authorize" if hub_id else "/oauth/authorize"
        scopes = quote(" ".join(conditional_scopes))
        return f"https://app.hubspot.com{path}?client_id={self.client_id}&scope={scopes}&state={quote(state)}"

    def exchange(self, code: str, granted_at: datetime, redirect_uri: str | None = None) -> ExchangedGrant:
        with self._lock:
            self.calls.append("exchange")
            self.exchanged.append(code)
            self.redirect_uris.append(redirect_uri)
            if self.exchange_error:
                raise self.exchange_error
            if code not in self.grants:
                raise CodeRejected("BAD_AUTH_CODE", http_status=400)
            values = asdict(self.grants.pop(code))
            del values["is_lifetime_known"]
            return ExchangedGrant(**values)

    def refresh(self, refresh_token: str, granted_at: datetime) -> Grant:
        with self._lock:
            self.calls.append("refresh")
            self.refreshes[refresh_token] += 1
            self.in_flight[refresh_token] += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight.total())
        time.sleep(self.answer_seconds)
        self.gate.wait(HANG_SECONDS)
        self.remaining_answers.acquire(timeout=HANG_SECONDS)
        with self._lock:
            self.in_flight[refresh_token] -= 1
            answer = self.error_by_token.get(refresh_token) or self.refresh_answer
        if isinstance(answer, ProviderError):
            raise answer
        return answer or grant(
            access_token=f"access-{refresh_token}", refresh_token=None, hub_id=None, granted_at=granted_at
        )

    def uninstall(self, access_token: str) -> None:
        self.calls.append(f"uninstall {access_token}")
        self.during_call()

    def revoke(self, refresh_token: str) -> None:
        self.calls.append(f"revoke {refresh_token}")
        self.during_call()

    def read_account(self, access_token: str) -> AccountDetails:
        with self._lock:
            self.calls.append("read_account")
        if isinstance(self.account_answer, ProviderError):
            raise self.account_answer
        return self.account_answer

    def introspect(self, token: str, kind: str, timeout: float | None = None) -> Introspection:
        with self._lock:
            self.calls.append("introspect")
            self.introspected.append((kind, token))
        if self.introspect_barrier:
            self.introspect_barrier.wait(HANG_SECONDS)
        if isinstance(self.introspect_answer, ProviderError):
            raise self.introspect_answer
        return self.introspect_answer
