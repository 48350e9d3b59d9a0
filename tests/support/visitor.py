"""A browser over HTTP: it submits the Connect form, is redirected to HubSpot and back, and polls the install's page."""

from __future__ import annotations

import time
from typing import Any, Self
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from sandbox.simulator.control import SimulatorControl

SECONDS = 60.0


class Visitor:
    """Has cookies of its own: another Visitor is another browser."""

    def __init__(self, url: str, simulator: SimulatorControl) -> None:
        """`url`: where web listens; its name, not its number, as in HUBSPOT_REDIRECT_URI."""
        self.url = url.replace("127.0.0.1", "localhost")
        self.simulator = simulator
        self.session = requests.Session()
        self.session.trust_env = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def get(self, path: str, **options: Any) -> requests.Response:
        """No redirect is followed."""
        address = urljoin(self.url, path)
        return self.session.get(address, allow_redirects=False, timeout=SECONDS, **options)

    def press_connect(self, hub_id: int | None = None) -> str:
        """HubSpot's address, to which the browser is sent."""
        answer = self.get("/install" if hub_id is None else f"/install?hub_id={hub_id}")
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def allow(self, hub_id: int) -> str:
        """Press Connect and allow it at HubSpot; the address, with code and state, that leads back."""
        return self.simulator.allow(self.press_connect(), hub_id)

    def install(self, hub_id: int) -> str:
        """The whole handshake; the path of the install's page."""
        answer = self.get(self.allow(hub_id))
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def status(self, path: str) -> dict[str, Any]:
        return dict(self.get(f"{path}/status").json())

    def wait(self, path: str, state: str = "connected", seconds: float = SECONDS) -> dict[str, Any]:
        """Watch the page, as its script does, until it shows `state`."""
        deadline = time.monotonic() + seconds
        while (found := self.status(path))["state"] != state:
            assert time.monotonic() < deadline, f"after {seconds:g} s: {found}"
            time.sleep(0.1)
        return found

    def seconds_until_expiry(self, start: str) -> float:
        """Of the first cookie whose name starts so."""
        cookie = next(cookie for cookie in self.session.cookies if cookie.name.startswith(start))
        return (cookie.expires or 0) - time.time()

    def cookie(self, start: str) -> str | None:
        """The value of the first cookie whose name starts so."""
        return next((cookie.value for cookie in self.session.cookies if cookie.name.startswith(start)), None)


def state_in(address: str) -> str:
    return parse_qs(urlsplit(address).query)["state"][0]


def code_in(address: str) -> str:
    return parse_qs(urlsplit(address).query)["code"][0]
