"""A Python handle on a running simulator, for tests and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import requests

from sandbox.simulator.behaviour import Behaviour

#: What a simulator knows that was given no app of its own.
DEMO_CLIENT_ID = Behaviour().client_ids[0]
DEMO_CLIENT_SECRET = Behaviour().client_secrets[0]


class ConsentRefused(Exception):
    """The consent page showed an error instead of a question; the message is its text."""


class ControlFailed(Exception):
    """The simulator did not do it; the message says why."""


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """What HubSpot thinks of an access token now."""

    state: str  #: live, expired, revoked or unknown
    hub_id: int | None
    seconds_left: float | None  #: negative: expired so long ago
    issued_at: float | None  #: seconds since 1970

    @property
    def is_live(self) -> bool:
        return self.state == "live"


class SimulatorControl:
    """Every method raises ControlFailed with the simulator's own words, or what `requests` raises.

    Threads may share one.
    """

    def __init__(self, base_url: str, *, timeout: float = 60.0) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._session.close()

    def is_healthy(self) -> bool:
        try:
            return self._session.get(f"{self.base_url}/_sim/health", timeout=2).ok
        except requests.RequestException:
            return False

    def install(self, hub_id: int) -> str:
        """An account that has the app already; its refresh token."""
        return str(self._ask("POST", "/install", query={"hub_id": hub_id})["refresh_token"])

    def install_many(self, count: int, first_hub_id: int = 1_000_000) -> dict[int, str]:
        """Refresh tokens by hub id, of `count` accounts with numbers from `first_hub_id` up."""
        told = self._ask("POST", "/installs", {"count": count, "first_hub_id": first_hub_id})
        return {int(hub_id): str(token) for hub_id, token in told["installs"]}

    def allow(self, authorize_url: str, hub_id: int) -> str:
        """Plays the consent page; the address to which the browser is sent back, with code and state."""
        return self._consent(authorize_url, answer="allow", other_hub_id=str(hub_id))

    def deny(self, authorize_url: str) -> str:
        return self._consent(authorize_url, answer="deny")

    def uninstall(self, hub_id: int, *, keep_access_tokens: bool | None = None) -> None:
        """As the customer does it. None: as the setting `uninstall_spares_access_tokens` says."""
        wish = {} if keep_access_tokens is None else {"keep_access_tokens": keep_access_tokens}
        self._ask("POST", f"/accounts/{hub_id}/uninstall", wish)

    def add_fault(
        self,
        kind: str | int,
        *,
        where: str = "token",
        grant: str = "any",
        hub_id: int | None = None,
        times: int | None = None,
        probability: float = 1.0,
        retry_after: str | float | None = None,
        seconds: float | None = None,
    ) -> int:
        """Orders a fault (kinds: faults.py, or an HTTP status); its id. `times` None: until cleared."""
        wish = {
            "kind": str(kind),
            "where": where,
            "grant": grant,
            "hub_id": hub_id,
            "times": times,
            "probability": probability,
            "retry_after": retry_after,
            "seconds": seconds,
        }
        return int(self._ask("POST", "/faults", wish)["id"])

    def clear_faults(self, fault_id: int | None = None) -> None:
        self._ask("DELETE", "/faults", query={} if fault_id is None else {"id": fault_id})

    def list_faults(self) -> list[dict[str, Any]]:
        """What is on order, with `hits` and the `times` that are left."""
        return list(self._ask("GET", "/faults")["faults"])

    def get_settings(self) -> dict[str, Any]:
        """The settings for all accounts under `all`, and those of single accounts under `by_hub`."""
        return self._ask("GET", "/settings")

    def change_settings(self, hub_id: int | None = None, **changes: Any) -> dict[str, Any]:
        """Changes fields of `Behaviour`, for all accounts or for one; returns the settings as `get_settings` does."""
        return self._ask("POST", "/settings", changes, query={} if hub_id is None else {"hub_id": hub_id})

    def remove_account_settings(self, hub_id: int) -> None:
        """That account has no settings of its own any more."""
        self._ask("DELETE", "/settings", query={"hub_id": hub_id})

    def get_stats(self, *, by_hub: bool = True) -> dict[str, Any]:
        """See counters.py; `most_refreshes_of_one_hub` must be 1, `violations` 0."""
        return self._ask("GET", "/stats", query={"by_hub": int(by_hub)})

    def check_tokens(self, tokens: Sequence[str]) -> list[TokenCheck]:
        """In the order of `tokens`."""
        return [TokenCheck(**told) for told in self._ask("POST", "/check", {"tokens": list(tokens)})["tokens"]]

    def reset(self, *, settings: bool = False, accounts: bool = False) -> None:
        """Counters and faults; on demand the settings of the start, and accounts and tokens forgotten."""
        self._ask("POST", "/reset", {"settings": settings, "accounts": accounts})

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        address = f"{self.base_url}/_sim{path}"
        reply = self._session.request(method, address, json=body, params=query, timeout=self._timeout)
        if not reply.ok:
            raise ControlFailed(f"{method} /_sim{path}: HTTP {reply.status_code} {reply.text[:500]}")
        told = reply.json() if reply.content else {}
        return dict(told)

    def _consent(self, authorize_url: str, **answer: str) -> str:
        page = self._session.get(authorize_url, timeout=self._timeout)
        form = _Page(page.text)
        if not form.is_question:
            raise ConsentRefused(form.problem or f"no form at the authorize URL (HTTP {page.status_code})")
        address = urljoin(page.url, form.action)
        fields = {**form.fields, **answer}
        reply = self._session.post(address, data=fields, allow_redirects=False, timeout=self._timeout)
        if not reply.is_redirect:
            raise ConsentRefused(_Page(reply.text).problem or f"HTTP {reply.status_code}")
        return reply.headers["Location"]


class _Page(HTMLParser):
    """The consent page's form, or the text of its error page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.is_question = False
        self.action = ""
        self.fields: dict[str, str] = {}
        self.problem = ""
        self._in_problem = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.is_question, self.action = True, given.get("action", "")
        elif tag == "input" and given.get("type") == "hidden":
            self.fields[given["name"]] = given.get("value", "")
        self._in_problem = given.get("id") == "problem"

    def handle_data(self, data: str) -> None:
        if self._in_problem:
            self.problem += data

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 the base class asks
        self._in_problem = False
