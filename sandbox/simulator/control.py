"""A client of the control interface of a running simulator, for tests and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import requests

from sandbox.simulator.behaviour import Behaviour
from sandbox.simulator.consent_page import ConsentPage

#: The app of a simulator that was started with no other.
DEMO_CLIENT_ID = Behaviour().client_ids[0]
DEMO_CLIENT_SECRET = Behaviour().client_secrets[0]


class ConsentRefused(Exception):
    """The consent page showed an error instead of a form; the message is its text."""


class ControlFailed(Exception):
    """The simulator refused a request; the message says why."""


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """Whether HubSpot would accept an access token now."""

    state: str  #: live, expired, revoked or unknown
    hub_id: int | None
    client_id: str | None
    user_id: int | None  #: of a user-level app
    seconds_left: float | None  #: negative: seconds since it expired
    issued_at: float | None  #: seconds since 1970

    @property
    def is_live(self) -> bool:
        return self.state == "live"


@dataclass(frozen=True, slots=True)
class MarketplaceStart:
    id: str
    url: str  #: which the browser opens first
    return_url: str


class SimulatorControl:
    """Every method raises ControlFailed with the simulator's message, or what `requests` raises. Thread-safe."""

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

    def add_app(self, client_id: str, **settings: Any) -> int:
        """Another app, with the common settings but for these fields of `Behaviour`; returns its app id."""
        self.change_settings(client_id=client_id, **settings)
        return self.get_app_id(client_id)

    def get_app_id(self, client_id: str) -> int:
        return int(self._request("GET", "/apps", query={"client_id": client_id})["app_id"])

    def change_account(self, hub_id: int, **changes: str) -> None:
        """`changes`: name, domain, user, account_type (STANDARD, SANDBOX …) and hublet (na1, eu1 …)."""
        self._request("POST", f"/accounts/{hub_id}", dict(changes))

    def install(self, hub_id: int, client_id: str | None = None, user_id: int | None = None) -> str:
        """Installs an app (None: the first) without a browser; returns the refresh token."""
        query = _without_none({"hub_id": hub_id, "client_id": client_id, "user_id": user_id})
        return str(self._request("POST", "/install", query=query)["refresh_token"])

    def install_many(
        self, count: int, first_hub_id: int = 1_000_000, *, client_id: str | None = None
    ) -> dict[int, str]:
        """Installs an app in `count` accounts with ids from `first_hub_id` up; returns refresh tokens by hub id."""
        body = _without_none({"count": count, "first_hub_id": first_hub_id, "client_id": client_id})
        return {int(hub_id): str(token) for hub_id, token in self._request("POST", "/installs", body)["installs"]}

    def allow(self, authorize_url: str, hub_id: int, user_id: int | None = None) -> str:
        """Allows on the consent page; returns the redirect URL with code and state. A user-level app needs the user."""
        user = {} if user_id is None else {"other_user_id": str(user_id)}
        return self._answer_consent_page(authorize_url, answer="allow", other_hub_id=str(hub_id), **user)

    def deny(self, authorize_url: str) -> str:
        """Denies on the consent page; returns the redirect URL with the error."""
        return self._answer_consent_page(authorize_url, answer="deny")

    def uninstall(
        self,
        hub_id: int | None = None,
        *,
        client_id: str | None = None,
        user_id: int | None = None,
        keep_access_tokens: bool | None = None,
    ) -> int:
        """As customers do: what is installed with that account, app and user (None: any). Returns how many.

        `keep_access_tokens` None: as the setting `uninstall_spares_access_tokens` says.
        """
        body = {
            "hub_id": hub_id,
            "client_id": client_id,
            "user_id": user_id,
            "keep_access_tokens": keep_access_tokens,
        }
        return int(self._request("POST", "/uninstall", _without_none(body))["uninstalled"])

    def add_fault(
        self,
        kind: str | int,
        *,
        where: str = "token",
        grant: str = "any",
        hub_id: int | None = None,
        client_id: str | None = None,
        times: int | None = None,
        probability: float = 1.0,
        retry_after: str | float | None = None,
        seconds: float | None = None,
    ) -> int:
        """Requests a fault (a kind of faults.py, or an HTTP status); returns its id. `times` None: until cleared."""
        body = {
            "kind": str(kind),
            "where": where,
            "grant": grant,
            "hub_id": hub_id,
            "client_id": client_id,
            "times": times,
            "probability": probability,
            "retry_after": retry_after,
            "seconds": seconds,
        }
        return int(self._request("POST", "/faults", body)["id"])

    def clear_faults(self, fault_id: int | None = None) -> None:
        self._request("DELETE", "/faults", query={} if fault_id is None else {"id": fault_id})

    def list_faults(self) -> list[dict[str, Any]]:
        """The requested faults, with `hits` and the `times` that are left."""
        return list(self._request("GET", "/faults")["faults"])

    def get_settings(self) -> dict[str, Any]:
        """The settings for all under `all`, and those of single apps and accounts under `by_app` and `by_hub`."""
        return self._request("GET", "/settings")

    def change_settings(
        self, hub_id: int | None = None, *, client_id: str | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Changes fields of `Behaviour`; returns the settings as `get_settings` does.

        For all, for one account, or for one app, which is created where it does not exist.
        """
        query = _without_none({"hub_id": hub_id, "client_id": client_id})
        return self._request("POST", "/settings", changes, query=query)

    def remove_account_settings(self, hub_id: int) -> None:
        """The common settings hold for that account again."""
        self._request("DELETE", "/settings", query={"hub_id": hub_id})

    def get_stats(self, *, by_hub: bool = True) -> dict[str, Any]:
        """See counters.py; `most_refreshes_of_one_hub` must be 1, `violations` 0."""
        return self._request("GET", "/stats", query={"by_hub": int(by_hub)})

    def check_tokens(self, tokens: Sequence[str]) -> list[TokenCheck]:
        """Results in the order of `tokens`."""
        return [TokenCheck(**each) for each in self._request("POST", "/check", {"tokens": list(tokens)})["tokens"]]

    def list_journal_events(self, client_id: str | None = None) -> list[dict[str, Any]]:
        """The events in the files of an app's Webhooks Journal, oldest first."""
        return list(self._request("GET", "/journal", query=_without_none({"client_id": client_id}))["events"])

    def list_subscriptions(self, client_id: str | None = None) -> list[str]:
        """The event type ids to which an app has subscribed in the Webhooks Journal."""
        reply = self._request("GET", "/journal", query=_without_none({"client_id": client_id}))
        return [each["event_type_id"] for each in reply["subscriptions"]]

    def publish_journal_file(self, events: Sequence[Any], client_id: str | None = None) -> str:
        """A file with these events, whatever they contain: repeated, reordered, of other apps; returns its offset."""
        body = _without_none({"events": list(events), "client_id": client_id})
        return str(self._request("POST", "/journal", body)["offset"])

    def forget_journal(self, client_id: str | None = None) -> None:
        """As if the retention of all files were over: every offset is lost."""
        self._request("DELETE", "/journal", query=_without_none({"client_id": client_id}))

    def start_marketplace_install(
        self,
        hub_id: int,
        install_url: str,
        *,
        flow: str = "code",
        client_id: str | None = None,
        user_id: int | None = None,
        return_query: str = "",
    ) -> MarketplaceStart:
        """Begins an install on the Marketplace without a browser. `flow`: code, sign_in or bare; see marketplace.py.

        The code is bound to `install_url`, or to the app's first redirect URI where others than it are registered.
        """
        body = {
            "hub_id": hub_id,
            "install_url": install_url,
            "flow": flow,
            "client_id": client_id,
            "user_id": user_id,
            "return_query": return_query,
        }
        return MarketplaceStart(**self._request("POST", "/marketplace", _without_none(body)))

    def answer_in_marketplace(self, install_id: str, *, is_allowed: bool = True) -> str:
        """The person's answer, once the app has returned with a state; returns the URL of the last leg."""
        return str(self._request("POST", f"/marketplace/{install_id}", {"is_allowed": is_allowed})["url"])

    def list_marketplace_installs(self) -> list[dict[str, Any]]:
        """Each with `is_complete`, and the `visits` of its returnUrl."""
        return list(self._request("GET", "/marketplace")["installs"])

    def reset(self, *, settings: bool = False, accounts: bool = False) -> None:
        """Clears counters and faults; on demand restores the initial settings, and removes accounts and tokens."""
        self._request("POST", "/reset", {"settings": settings, "accounts": accounts})

    def _request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        address = f"{self.base_url}/_sim{path}"
        reply = self._session.request(method, address, json=body, params=query, timeout=self._timeout)
        if not reply.ok:
            raise ControlFailed(f"{method} /_sim{path}: HTTP {reply.status_code} {reply.text[:500]}")
        return dict(reply.json()) if reply.content else {}

    def _answer_consent_page(self, authorize_url: str, **answer: str) -> str:
        page = self._session.get(authorize_url, timeout=self._timeout)
        form = ConsentPage(page.text)
        if not form.has_form:
            raise ConsentRefused(form.problem or f"no form at the authorize URL (HTTP {page.status_code})")
        address = urljoin(page.url, form.action)
        fields = {**form.fields, **answer}
        reply = self._session.post(address, data=fields, allow_redirects=False, timeout=self._timeout)
        if not reply.is_redirect:
            raise ConsentRefused(ConsentPage(reply.text).problem or f"HTTP {reply.status_code}")
        return reply.headers["Location"]


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
