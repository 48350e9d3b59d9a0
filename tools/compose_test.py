"""Tries docker-compose.yml for real: `make compose-test`. Skips, and says so, where there is no Docker engine.

Builds, brings everything up under a project name and on ports of its own, connects an account through the simulator,
reads its token with psql, sees it refreshed, takes everything down and up again, and looks whether anything was lost.
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
SERVED = "SELECT access_token FROM hubspot.tokens WHERE hub_id = 62515"
EVENTS = "SELECT string_agg(event, ',' ORDER BY at) FROM hubspot.history WHERE hub_id = 62515"
LIFETIME = 20
ONE_SHOTS = frozenset({"init", "migrate"})
NOTHING: Mapping[str, str] = {}
#: An app as .env would give it; but where it would call HubSpot there is only a simulator that has gone.
APP = {
    "HUBSPOT_CLIENT_ID": "an-app",
    "HUBSPOT_CLIENT_SECRET": "a-secret",
    "HUBSPOT_SCOPES": "oauth",
    "HUBSPOT_API_URL": "http://simulator:8090",
}
#: As the service is logged in. What PostgreSQL forbids is said in a word.
ASK = """
import os, sys, psycopg2
asked = psycopg2.connect(open(os.environ["DATABASE_URL_FILE"]).read().strip()).cursor()
try:
    asked.execute(sys.argv[1])
except psycopg2.errors.InsufficientPrivilege as error:
    print(type(error).__name__)
    sys.exit(1)
"""
STATE = (
    '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.ExitCode}}'
    " {{with .State.Health}}{{.Status}}{{end}}"
)


class Failed(Exception):
    pass


class Stack:
    """One project of docker compose, alone with its name, its ports and an empty .env."""

    def __init__(self, compose: list[str], no_env: Path) -> None:
        self.project = f"tokenkeeper-test-{secrets.token_hex(3)}"
        self.web, self.flower, self.simulator = free_ports(3)
        self._compose = [*compose, "-p", self.project, "--env-file", str(no_env)]
        ours = {"WEB_PORT": self.web, "FLOWER_PORT": self.flower, "SIMULATOR_PORT": self.simulator}
        self._env = {name: value for name, value in os.environ.items() if wanted(name)}  # noqa: TID251  docker's own
        self._env |= {name: str(port) for name, port in ours.items()} | {"SIMULATOR_LIFETIME": str(LIFETIME)}

    def run(self, *command: str, timeout: float = 300, expect: int = 0, env: Mapping[str, str] = NOTHING) -> str:
        done = call([*self._compose, *command], timeout, {**self._env, **env})
        if done.returncode != expect:
            raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout

    def up(self, *more: str, done: frozenset[str] = ONE_SHOTS, env: Mapping[str, str] = NOTHING) -> None:
        """Returns once what is in `done` has ended well and all the rest is healthy."""
        self.run("up", "-d", *more, env=env)
        until(lambda: self.all_well(done), 180, "every container healthy")

    def all_well(self, done: frozenset[str]) -> bool:
        states = self.states()
        broken = [state for state in states if state[1] == "exited" and state[2] != "0"]
        if broken:
            raise Failed(f"{broken[0][0]} ended with status {broken[0][2]}")
        return all(status == "exited" if name in done else health == "healthy" for name, status, _, health in states)

    def states(self) -> list[list[str]]:
        """Service, status, exit code and health of every container."""
        ids = self.run("ps", "-aq").split()
        lines = call(["docker", "inspect", "-f", STATE, *ids], 30, self._env).stdout.splitlines()
        return [[*line.split(), ""][:4] for line in lines]

    def sql(self, statement: str) -> str:
        psql = ("psql", "-U", "tokenkeeper", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement)
        return self.run("exec", "-T", "postgres", *psql, timeout=30).strip()

    def token(self) -> str:
        return self.sql(SERVED)

    def password(self) -> str:
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
            journey(stack)
        except (Failed, ConsentRefused, requests.RequestException, subprocess.TimeoutExpired) as error:
            print(f"compose-test: failed: {error}", file=sys.stderr)
            print(stack.run("logs", "--tail", "40"), file=sys.stderr)
            return 1
        finally:
            stack.run("down", "-v", "--remove-orphans")
    print("compose-test: passed")
    return 0


def journey(stack: Stack) -> None:
    with timed("build"):
        stack.run("build", timeout=900)
    stack.run("run", "--rm", "init", expect=EX_CONFIG, env={"HUBSPOT_CLIENT_ID": "half an app"})
    with timed("up, all healthy"):
        stack.up()
    with timed("install, readable in SQL"):
        install(stack)
        token = until(stack.token, 10, "the token in hubspot.tokens")
    check_live(stack, token)
    small_powers(stack)
    token = refreshed(stack, token, "refreshed")
    token = down_and_up(stack, token)
    with timed("four workers and two beats, all healthy"):
        stack.up("--scale", "worker=4", "--scale", "beat=2")
    refreshed(stack, token, "refreshed with four workers and two beats")
    if (events := stack.sql(EVENTS)) != "installed":
        raise Failed(f"the history should say no more than installed: {events}")
    with timed("an app in .env: the simulator leaves"):
        stack.up(done=ONE_SHOTS | {"simulator"}, env=APP)
    if not (asked := to_hubspot(stack)).startswith("https://app.hubspot.com/oauth/authorize?client_id=an-app&"):
        raise Failed(f"with an app in .env, Connect leads to {asked}")


def down_and_up(stack: Stack, token: str) -> str:
    password = stack.password()
    with timed("down"):
        stack.run("down")
    with timed("up again, all healthy"):
        stack.up()
    if stack.password() != password:
        raise Failed("the operator's password is another one after down and up")
    return refreshed(stack, token, "refreshed after down and up")


def refreshed(stack: Stack, before: str, what: str) -> str:
    """The next token, which works, within a life of the one before and what it takes to come up."""

    def another() -> str:
        return now if (now := stack.token()) != before else ""

    with timed(what):
        token = until(another, 2 * LIFETIME, what)
    check_live(stack, token)
    return token


def small_powers(stack: Stack) -> None:
    """Web stores what it may not read, the worker reads what it may not reshape, and no key is missing anywhere."""
    for service, statement, expect in (
        ("web", "SELECT status FROM tokenkeeper.connections", 0),
        ("web", "SELECT encrypted_refresh_token FROM tokenkeeper.connections", 1),
        ("worker", "SELECT encrypted_refresh_token FROM tokenkeeper.connections", 0),
        ("worker", "DROP TABLE tokenkeeper.installs", 1),
    ):
        said = stack.run("exec", "-T", service, "python", "-c", ASK, statement, expect=expect)
        if expect and said.strip() != "InsufficientPrivilege":
            raise Failed(f"{service}: {statement}: {said}")
    stack.run("exec", "-T", "worker", "tokenkeeper", "keys", "rotate")
    stack.run("exec", "-T", "web", "sh", "-c", "! touch /opt/tokenkeeper/x && test $(id -u) = 10001")


def to_hubspot(stack: Stack) -> str:
    answer = requests.get(f"http://localhost:{stack.web}/install", allow_redirects=False, timeout=10)
    return answer.headers["Location"]


def install(stack: Stack) -> None:
    """What a person does in a browser, over HTTP."""
    web = f"http://localhost:{stack.web}"
    with requests.Session() as browser:
        browser.trust_env = False
        to_hubspot = browser.get(f"{web}/install", allow_redirects=False, timeout=10)
        callback = SimulatorControl(f"http://localhost:{stack.simulator}").allow(to_hubspot.headers["Location"], HUB)
        waiting = browser.get(callback, allow_redirects=False, timeout=30)
        if waiting.status_code != requests.codes.see_other:
            raise Failed(f"the callback answered {waiting.status_code}")
        status = f"{web}{waiting.headers['Location'].removeprefix(web)}/status"
        until(lambda: browser.get(status, timeout=10).json()["state"] == "connected", 20, "the connection stored")


def check_live(stack: Stack, token: str) -> None:
    """HubSpot's word for it, asked as a downstream job would."""
    api = f"http://localhost:{stack.simulator}/crm/v3/objects/contacts"
    with requests.Session() as job:
        job.trust_env = False
        answer = job.get(api, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    if not answer.ok:
        raise Failed(f"the token read in SQL was refused with {answer.status_code}")


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


def wanted(name: str) -> bool:
    return name in {"PATH", "HOME", "LANG", "TMPDIR"} or name.startswith(("DOCKER_", "COMPOSE_DOCKER", "XDG_"))


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(look: Callable[[], T], seconds: float, what: str) -> T:
    """The first thing seen that is not empty. Raises Failed when `seconds` have gone by without any."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.5)
    raise Failed(f"waited {seconds:g} s in vain for {what}")


@contextmanager
def timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"compose-test: {what}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
