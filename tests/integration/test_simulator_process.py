"""`python -m sandbox.simulator` as a process: start, stop, SIGKILL, and start on the same state file."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from sandbox.ports import find_free_port
from sandbox.simulator.control import DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, SimulatorControl
from tests.support.polling import until
from tests.support.simulator import CALLBACK, HUB, parse_redirect

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.02
Start = Callable[..., "SimulatorProcess"]


class SimulatorProcess:
    def __init__(self, port: int, arguments: tuple[str, ...], environ: dict[str, str]) -> None:
        command = [sys.executable, "-m", "sandbox.simulator", "--port", str(port), *arguments]
        # without HubSpot settings of this machine
        env = {"PATH": os.environ["PATH"], **environ}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.control = SimulatorControl(f"http://127.0.0.1:{port}")

    def wait_until_ready(self) -> SimulatorControl:
        deadline = time.monotonic() + 60
        while not self.control.is_healthy():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the simulator is not ready"
            time.sleep(POLL_SECONDS)
        return self.control

    def wait_for_end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        self.control.close()
        return self.process.returncode, out, err

    def stop(self, number: signal.Signals) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.wait_for_end()


@pytest.fixture
def port() -> int:
    """Not one that the system chooses: it would give it to an outgoing connection before the simulator listens."""
    return find_free_port()


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    processes: list[SimulatorProcess] = []

    def start_simulator(*arguments: str, **environ: str) -> SimulatorProcess:
        processes.append(SimulatorProcess(port, arguments, environ))
        return processes[-1]

    yield start_simulator
    for each in processes:
        if each.process.poll() is None:
            each.stop(signal.SIGKILL)


def refresh(
    control: SimulatorControl,
    token: str,
    *,
    client_id: str = DEMO_CLIENT_ID,
    secret: str = DEMO_CLIENT_SECRET,
) -> requests.Response:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token,
        "client_id": client_id,
        "client_secret": secret,
    }
    return requests.post(f"{control.base_url}/oauth/v3/token", data=form, timeout=60)


def test_everything_that_was_answered_survives_sigkill(start: Start, tmp_path: Path) -> None:
    state = ("--state", str(tmp_path / "new" / "state"))
    first = start(*state)
    control = first.wait_until_ready()
    tokens = list(control.install_many(50).values())
    control.change_settings(rotation=0)
    rotated = refresh(control, tokens[0]).json()
    parameters = {"client_id": DEMO_CLIENT_ID, "redirect_uri": CALLBACK, "scope": "oauth"}
    url = requests.Request("GET", f"{control.base_url}/oauth/authorize", params=parameters).prepare().url
    code = parse_redirect(control.allow(url or "", HUB))["code"]
    assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL

    control = start(*state).wait_until_ready()
    assert control.check_tokens([rotated["access_token"]])[0].is_live
    assert refresh(control, tokens[0]).json()["status"] == "BAD_REFRESH_TOKEN"
    assert refresh(control, rotated["refresh_token"]).ok
    assert all(refresh(control, token).ok for token in tokens[1:])
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    app = {"client_id": DEMO_CLIENT_ID, "client_secret": DEMO_CLIENT_SECRET}
    assert requests.post(f"{control.base_url}/oauth/v3/token", data=form | app, timeout=60).ok


def test_only_the_owner_can_read_the_state_file(start: Start, tmp_path: Path) -> None:
    start("--state", str(tmp_path / "state")).wait_until_ready().install(HUB)
    assert {oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()} == {"0o600"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_simulator_while_slow_calls_are_in_flight(
    start: Start, port: int, number: signal.Signals
) -> None:
    simulator = start()
    control = simulator.wait_until_ready()
    control.change_settings(latency=60)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /crm/objects/2026-09/contacts HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: control.get_stats()["in_flight"])
        start_of_stop = time.monotonic()
        code, out, err = simulator.stop(number)
        assert (code, err) == (0, "")
        assert time.monotonic() - start_of_stop < 30, "it does not wait for the calls, which take 60 s"
        assert out.endswith("simulator: stopped\n")


def test_the_app_is_read_from_the_environment_and_from_files(start: Start, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("old-secret,new-secret\n")
    simulator = start(
        "--lifetime=30",
        HUBSPOT_CLIENT_ID="my-app",
        HUBSPOT_CLIENT_SECRET_FILE=str(tmp_path / "secret"),
        HUBSPOT_REDIRECT_URI=CALLBACK,
        HUBSPOT_SCOPES="oauth files",
    )
    control = simulator.wait_until_ready()
    token = control.install(HUB)
    for secret in ("old-secret", "new-secret"):
        grant = refresh(control, token, client_id="my-app", secret=secret).json()
        assert (grant["expires_in"], grant["scopes"]) == (30, ["oauth", "files"])
    assert refresh(control, token).json()["status"] == "BAD_CLIENT_ID"
    code, out, err = simulator.stop(signal.SIGTERM)
    assert code == 0
    assert "secret" not in out + err


def test_several_apps_are_read_from_the_file_of_apps(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    file.write_text(f"""
        [default]
        client_id = "first"
        client_secret = "secret-1"
        redirect_uri = "{CALLBACK}"
        scopes = "oauth"
        [people]
        client_id = "second"
        client_secret = "secret-2"
        redirect_uri = "{CALLBACK}"
        scopes = "oauth files"
        user_level = true
    """)
    control = start(HUBSPOT_APPS_FILE=str(file)).wait_until_ready()
    control.reset(settings=True)
    first = refresh(control, control.install(HUB, "first"), client_id="first", secret="secret-1").json()
    second = refresh(control, control.install(HUB, "second", 777), client_id="second", secret="secret-2").json()
    assert (first["scopes"], "user_id" in first) == (["oauth"], False)
    assert (second["scopes"], second["user_id"]) == (["oauth", "files"], 777)


def test_the_simulator_exits_at_once_where_an_app_is_configured(start: Start) -> None:
    code, out, err = start("--unless-configured", HUBSPOT_APP_CONFIGURED="yes").wait_for_end()
    assert (code, err) == (0, "")
    assert out == "simulator: a HubSpot app is configured, so it is not needed\n"


def test_the_simulator_runs_where_the_configured_app_is_empty(start: Start) -> None:
    assert start("--unless-configured", HUBSPOT_APP_CONFIGURED="").wait_until_ready().install(HUB)


def test_a_port_in_use_is_reported_in_one_line(start: Start, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        code, out, err = start().wait_for_end()
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{port}" in err


def test_a_state_file_that_is_no_database_is_reported_in_one_line_and_left_unchanged(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "holiday.txt"
    file.write_text("not a database " * 100)
    code, out, err = start("--state", str(file)).wait_for_end()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "name another file" in err
    assert file.read_text() == "not a database " * 100


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [(("--lifetime=0",), {}), (("--host=not.a.host.invalid",), {}), ((), {"HUBSPOT_REDIRECT_URI": "ftp://x"})],
)
def test_an_invalid_setting_is_reported_in_one_line(
    start: Start, arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    code, out, err = start(*arguments, **environ).wait_for_end()
    assert (code, out, err.count("\n")) == (1, "", 1)
