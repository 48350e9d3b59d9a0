"""Tests docker-compose.yml with a Docker engine: `make compose-test`. Skips with a message where there is none.

It builds the images, starts every service under a project name and on ports of its own, connects an account through
the simulator, reads its token with psql, waits for a refresh, stops and starts everything, and checks that nothing was
lost.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import requests

from deploy.init_secrets import EX_CONFIG
from sandbox.simulator.control import ConsentRefused, SimulatorControl

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
HUB = 62515
READ_TOKEN = "SELECT access_token FROM hubspot.tokens WHERE hub_id = 62515"  # noqa: S105 a statement
READ_EVENTS = "SELECT string_agg(event, ',' ORDER BY at) FROM hubspot.history WHERE hub_id = 62515"
TOKEN_SECONDS = 20
POLL_SECONDS = 0.5
LOG_TAIL_CHARACTERS = 4000
#: Fails where the image contains the sandbox.
CHECK_NO_SANDBOX = "import importlib.util as i; assert not i.find_spec('sandbox')"
ONE_SHOTS = frozenset({"init", "migrate"})
NO_VARIABLES: Mapping[str, str] = {}
#: A HubSpot app as in .env. HubSpot's address is the simulator's, which does not run then: no call leaves the machine.
APP = {
    "HUBSPOT_CLIENT_ID": "an-app",
    "HUBSPOT_CLIENT_SECRET": "a-secret",
    "HUBSPOT_SCOPES": "oauth",
    "HUBSPOT_API_URL": "http://simulator:8090",
}
#: Run in a service's container, with its own login: prints InsufficientPrivilege where PostgreSQL refuses.
EXECUTE_SQL = """
import os, sys, psycopg2
cursor = psycopg2.connect(open(os.environ["DATABASE_URL_FILE"]).read().strip()).cursor()
try:
    cursor.execute(sys.argv[1])
except psycopg2.errors.InsufficientPrivilege as error:
    print(type(error).__name__)
    sys.exit(1)
"""
CONTAINER_STATE = (
    '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.ExitCode}}'
    " {{with .State.Health}}{{.Status}}{{end}}"
)


class ComposeError(Exception):
    """The message says what was expected and what happened."""


class Stack:
    """A compose project with a name and ports of its own, and an empty .env."""

    def __init__(self, compose: list[str], no_env: Path) -> None:
        self.project = f"tokenkeeper-test-{secrets.token_hex(3)}"
        self.web, self.flower, self.simulator = find_free_ports(3)
        self._compose = [*compose, "-p", self.project, "--env-file", str(no_env)]
        ports = {"WEB_PORT": self.web, "FLOWER_PORT": self.flower, "SIMULATOR_PORT": self.simulator}
        self._env = {name: value for name, value in os.environ.items() if is_inherited(name)}  # noqa: TID251  docker reads it
        self._env |= {name: str(port) for name, port in ports.items()} | {"SIMULATOR_LIFETIME": str(TOKEN_SECONDS)}

    def run(self, *command: str, timeout: float = 300, expect: int = 0, env: Mapping[str, str] = NO_VARIABLES) -> str:
        result = call([*self._compose, *command], timeout, {**self._env, **env})
        if result.returncode != expect:
            output = f"{result.stdout[-LOG_TAIL_CHARACTERS:]}{result.stderr[-LOG_TAIL_CHARACTERS:]}"
            raise ComposeError(f"{' '.join(command)}: exit {result.returncode}\n{output}")
        return result.stdout

    def up(self, *options: str, one_shots: frozenset[str] = ONE_SHOTS, env: Mapping[str, str] = NO_VARIABLES) -> None:
        """Returns once the containers of `one_shots` have ended with status 0 and all others are healthy."""
        self.run("up", "-d", *options, env=env)
        until(lambda: self.is_ready(one_shots), 180, "every container healthy")

    def is_ready(self, one_shots: frozenset[str]) -> bool:
        states = self.read_states()
        failed = [state for state in states if state[1] == "exited" and state[2] != "0"]
        if failed:
            raise ComposeError(f"{failed[0][0]} ended with status {failed[0][2]}")
        return all(
            status == "exited" if name in one_shots else health == "healthy" for name, status, _, health in states
        )

    def read_states(self) -> list[list[str]]:
        """Service, status, exit code and health of every container."""
        ids = self.run("ps", "-aq").split()
        lines = call(["docker", "inspect", "-f", CONTAINER_STATE, *ids], 30, self._env).stdout.splitlines()
        return [[*line.split(), ""][:4] for line in lines]

    def query(self, statement: str) -> str:
        psql = ("psql", "-U", "tokenkeeper", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement)
        return self.run("exec", "-T", "postgres", *psql, timeout=30).strip()

    def read_token(self) -> str:
        return self.query(READ_TOKEN)

    def read_password(self) -> str:
        return self.run("exec", "-T", "web", "cat", "/run/tokenkeeper/OPERATOR_PASSWORD", timeout=30).strip()


def main() -> int:
    compose, reason = find_compose()
    if not compose:
        print(f"compose-test: skipped: {reason}")
        return 0
    print(f"compose-test: {' '.join(compose)}")
    with tempfile.NamedTemporaryFile() as no_env:
        stack = Stack(compose, Path(no_env.name))
        try:
            run_test(stack)
        except (ComposeError, ConsentRefused, requests.RequestException, subprocess.TimeoutExpired) as error:
            print(f"compose-test: failed: {error}", file=sys.stderr)
            print(stack.run("logs", "--tail", "40"), file=sys.stderr)
            return 1
        finally:
            stack.run("down", "-v", "--remove-orphans")
    print("compose-test: passed")
    return 0


def run_test(stack: Stack) -> None:
    with print_duration("build"):
        stack.run("build", timeout=900)
    stack.run("run", "--rm", "init", expect=EX_CONFIG, env={"HUBSPOT_CLIENT_ID": "half an app"})
    with print_duration("up, all healthy"):
        stack.up()
    for service in ("web", "worker"):
        stack.run("exec", "-T", service, "python", "-c", CHECK_NO_SANDBOX)
    with print_duration("install, readable in SQL"):
        install(stack)
        token = until(stack.read_token, 10, "the token in hubspot.tokens")
    check_live(stack, token)
    check_privileges(stack)
    token = wait_for_refresh(stack, token, "refreshed")
    token = restart_all(stack, token)
    with print_duration("four workers and two beats, all healthy"):
        stack.up("--scale", "worker=4", "--scale", "beat=2")
    wait_for_refresh(stack, token, "refreshed with four workers and two beats")
    if (events := stack.query(READ_EVENTS)) != "installed":
        raise ComposeError(f"the history should say no more than installed: {events}")
    with print_duration("an app in .env: the simulator exits"):
        stack.up(one_shots=ONE_SHOTS | {"simulator"}, env=APP)
    if not (url := read_authorize_url(stack)).startswith("https://app.hubspot.com/oauth/authorize?client_id=an-app&"):
        raise ComposeError(f"with an app in .env, Connect leads to {url}")


def restart_all(stack: Stack, token: str) -> str:
    password = stack.read_password()
    with print_duration("down"):
        stack.run("down")
    with print_duration("up again, all healthy"):
        stack.up()
    if stack.read_password() != password:
        raise ComposeError("the operator's password is another one after down and up")
    return wait_for_refresh(stack, token, "refreshed after down and up")


def wait_for_refresh(stack: Stack, before: str, what: str) -> str:
    """Waits for a token other than `before`, checks that it works, and returns it."""

    def find_new_token() -> str:
        return token if (token := stack.read_token()) != before else ""

    with print_duration(what):
        token = until(find_new_token, 2 * TOKEN_SECONDS, what)
    check_live(stack, token)
    return token


def check_privileges(stack: Stack) -> None:
    """Web cannot read stored refresh tokens, the worker cannot drop a table, and the worker has every token key."""
    for service, statement, expect in (
        ("web", "SELECT status FROM tokenkeeper.connections", 0),
        ("web", "SELECT encrypted_refresh_token FROM tokenkeeper.connections", 1),
        ("worker", "SELECT encrypted_refresh_token FROM tokenkeeper.connections", 0),
        ("worker", "DROP TABLE tokenkeeper.installs", 1),
    ):
        output = stack.run("exec", "-T", service, "python", "-c", EXECUTE_SQL, statement, expect=expect)
        if expect and output.strip() != "InsufficientPrivilege":
            raise ComposeError(f"{service}: {statement}: {output}")
    stack.run("exec", "-T", "worker", "tokenkeeper", "keys", "rotate")
    stack.run("exec", "-T", "web", "sh", "-c", "! touch /opt/tokenkeeper/x && test $(id -u) = 10001")


def read_authorize_url(stack: Stack) -> str:
    answer = requests.get(f"http://localhost:{stack.web}/install", allow_redirects=False, timeout=10)
    return answer.headers["Location"]


def install(stack: Stack) -> None:
    """Connects an account with the requests that a browser sends."""
    web = f"http://localhost:{stack.web}"
    with requests.Session() as browser:
        browser.trust_env = False
        start = browser.get(f"{web}/install", allow_redirects=False, timeout=10)
        callback = SimulatorControl(f"http://localhost:{stack.simulator}").allow(start.headers["Location"], HUB)
        answer = browser.get(callback, allow_redirects=False, timeout=30)
        if answer.status_code != requests.codes.see_other:
            raise ComposeError(f"the callback answered {answer.status_code}")
        status = f"{web}{answer.headers['Location'].removeprefix(web)}/status"
        until(lambda: browser.get(status, timeout=10).json()["state"] == "connected", 20, "the connection stored")


def check_live(stack: Stack, token: str) -> None:
    """Calls the simulator's API with the token, as a downstream job does."""
    api = f"http://localhost:{stack.simulator}/crm/objects/2026-09/contacts"
    with requests.Session() as job:
        job.trust_env = False
        answer = job.get(api, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    if not answer.ok:
        raise ComposeError(f"the token read in SQL was refused with {answer.status_code}")


def find_compose() -> tuple[list[str], str]:
    if not shutil.which("docker"):
        return [], "there is no docker command here"
    engine = call(["docker", "info"], 30)
    if engine.returncode:
        return [], f"no Docker engine answers ({(engine.stderr.strip() or 'docker info failed').splitlines()[-1]})"
    for compose in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(compose[0]) and call([*compose, "version"], 30).returncode == 0:
            return compose, ""
    return [], "there is neither docker compose nor docker-compose"


def call(command: list[str], timeout: float, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout, check=False)


def is_inherited(name: str) -> bool:
    return name in {"PATH", "HOME", "LANG", "TMPDIR"} or name.startswith(("DOCKER_", "COMPOSE_DOCKER", "XDG_"))


def find_free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(read: Callable[[], T], seconds: float, what: str) -> T:
    """The first result of `read` that is true. Raises ComposeError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := read():
            return result
        time.sleep(POLL_SECONDS)
    raise ComposeError(f"waited {seconds:g} s for {what}")


@contextmanager
def print_duration(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"compose-test: {what}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
