"""A HubSpot simulator in this process, over real HTTP, and the requests that its tests send."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from sandbox.simulator.behaviour import Behaviour, BehaviourSettings
from sandbox.simulator.control import DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, SimulatorControl
from sandbox.simulator.server import SimulatorServer
from sandbox.simulator.simulation import Simulation
from tests.support.polling import until

CALLBACK = "http://localhost:5000/oauth/callback"
APP = {"client_id": DEMO_CLIENT_ID, "client_secret": DEMO_CLIENT_SECRET}
HUB = 62515


class Clock:
    """The simulator's clock, which a test can move forward."""

    def __init__(self) -> None:
        self.offset_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_seconds


class SimulatorFixture:
    def __init__(self, control: SimulatorControl, clock: Clock) -> None:
        self.control = control
        self.clock = clock
        self.url = control.base_url
        self.http = requests.Session()
        self.http.trust_env = False

    def authorize_url(self, **changes: str | None) -> str:
        """`preselected`: the hub id in the path of the URL. A parameter that is None is left out."""
        hub_id = changes.pop("preselected", None)
        defaults = {"client_id": DEMO_CLIENT_ID, "redirect_uri": CALLBACK, "scope": "oauth", "state": "s p+c&e"}
        query = urlencode({name: value for name, value in (defaults | changes).items() if value is not None})
        return f"{self.url}/oauth/{f'{hub_id}/' if hub_id else ''}authorize?{query}"

    def get_code(self, hub_id: int = HUB, **changes: str) -> str:
        return parse_redirect(self.control.allow(self.authorize_url(**changes), hub_id))["code"]

    def post(self, path: str, version: str = "2026-09", **form: str | None) -> requests.Response:
        return self.http.post(f"{self.url}/oauth/{version}/{path}", data=APP | form, timeout=60)

    def exchange(self, code: str, version: str = "2026-09", **changes: str | None) -> requests.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK} | changes
        return self.post("token", version, **form)

    def refresh(self, token: str, version: str = "2026-09", **changes: str | None) -> requests.Response:
        return self.post("token", version, **({"grant_type": "refresh_token", "refresh_token": token} | changes))

    def send_refresh(self, token: str, **changes: str) -> socket.socket:
        """The socket of a refresh that was sent and whose answer has not been read."""
        body = urlencode({"grant_type": "refresh_token", "refresh_token": token, **APP, **changes}).encode()
        head = (
            "POST /oauth/2026-09/token HTTP/1.1\r\nHost: x\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        address = urlsplit(self.url)
        connection = socket.create_connection((address.hostname, address.port), timeout=60)
        connection.sendall(head.encode() + body)
        return connection

    def wait_until_in_flight(self, number: int) -> None:
        until(lambda: self.control.get_stats()["in_flight"] == number)

    def introspect(self, token: str, **changes: str) -> dict[str, Any]:
        reply = self.post("token/introspect", token=token, **changes)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def get_contacts(self, access_token: str) -> requests.Response:
        bearer = {"Authorization": f"Bearer {access_token}"}
        return self.http.get(f"{self.url}/crm/objects/2026-09/contacts", headers=bearer, timeout=60)


def parse_redirect(url: str) -> dict[str, str]:
    """The query parameters of a redirect URL."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@contextmanager
def run_simulator(behaviour: Behaviour | None = None) -> Iterator[SimulatorFixture]:
    clock = Clock()
    state = Simulation(clock, BehaviourSettings(behaviour or Behaviour()))
    server = SimulatorServer(state, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        with SimulatorControl(f"http://127.0.0.1:{server.port}") as control:
            simulator = SimulatorFixture(control, clock)
            yield simulator
            simulator.http.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        state.close()
