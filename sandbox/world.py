"""What one run on a laptop consists of: its ports, its secrets, the HubSpot it talks to, and so every setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.init_secrets import MADE, app_given, joined, kept, write
from sandbox.ports import LAST_PORT, NoFreePort, find_free_port_from

OURS = ("TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD")
SIMULATED_CLIENT_ID = "tokenkeeper-demo"
SIMULATED_SCOPES = "oauth crm.objects.contacts.read"
LIFETIME = 120  #: seconds that the simulator's access tokens live: one can watch a refresh happen


class BadPort(Exception):
    """WEB_PORT, FLOWER_PORT or SIMULATOR_PORT cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Ports:
    web: int
    flower: int
    simulator: int | None  #: None where HubSpot itself is asked


@dataclass(frozen=True, slots=True)
class World:
    ports: Ports
    settings: Mapping[str, str] = field(repr=False)

    @property
    def simulated(self) -> bool:
        return self.ports.simulator is not None

    @property
    def home(self) -> str:
        return f"http://localhost:{self.ports.web}/"


def given(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> dict[str, str]:
    """What the environment and .env say; the environment wins, also by an empty value. What is empty is not given."""
    both = {**dotenv, **environ}
    for name in dotenv:
        if name.endswith("_FILE") and environ.get(name.removesuffix("_FILE")):
            del both[name]  # X_FILE of .env does not stand against X of the environment
    return {name: value.strip() for name, value in both.items() if value.strip()}


def is_simulated(given: Mapping[str, str]) -> bool:
    """Raises init_secrets.Refused where half a HubSpot app is configured."""
    return not app_given({name.removesuffix("_FILE"): value for name, value in given.items()})


def choose_ports(given: Mapping[str, str], say: Callable[[str], None], *, simulated: bool) -> Ports:
    """Raises BadPort. Says where one is not the one wished for."""
    taken: set[int] = set()

    def choose(name: str, usual: int) -> int:
        wanted = _wished(given, name, usual)
        try:
            port = find_free_port_from(wanted, frozenset(taken))
        except NoFreePort as error:
            raise BadPort(f"{error}: set {name} to a free one") from None
        if port != wanted:
            say(f"port {wanted} is taken: {port} instead ({name} chooses another)")
        taken.add(port)
        return port

    web, flower = choose("WEB_PORT", 5000), choose("FLOWER_PORT", 5555)
    return Ports(web, flower, choose("SIMULATOR_PORT", 8090) if simulated else None)


def kept_secrets(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Made once, kept in a file each, readable by us alone; what is given wins, but no key to the data is ever lost."""
    folder.mkdir(mode=0o700, exist_ok=True)
    made = {name: kept(folder / name) or MADE[name]() for name in (*OURS, "SIMULATOR_CLIENT_SECRET")}
    if "TOKEN_KEYS" in given:
        made["TOKEN_KEYS"] = joined(given["TOKEN_KEYS"], made["TOKEN_KEYS"])
    for name, value in made.items():
        write(folder / name, value, mode=0o600)
    chosen = {name: given[name] for name in OURS if name in given and name != "TOKEN_KEYS"}
    return {**made, **{name: "" for name in OURS if f"{name}_FILE" in given}, **chosen}


def make(given: Mapping[str, str], ports: Ports, secrets: Mapping[str, str], urls: Mapping[str, str]) -> World:
    """`urls`: DATABASE_URL and REDIS_URL."""
    settings = {name: secrets[name] for name in OURS} | dict(urls)
    if "HUBSPOT_REDIRECT_URI_FILE" not in given:
        callback = f"http://localhost:{ports.web}/oauth/callback"
        settings["HUBSPOT_REDIRECT_URI"] = given.get("HUBSPOT_REDIRECT_URI", callback)
    if ports.simulator is not None:
        settings |= {
            "HUBSPOT_CLIENT_ID": SIMULATED_CLIENT_ID,
            "HUBSPOT_CLIENT_SECRET": secrets["SIMULATOR_CLIENT_SECRET"],
            "HUBSPOT_SCOPES": SIMULATED_SCOPES,
            "HUBSPOT_API_URL": f"http://127.0.0.1:{ports.simulator}",
            "HUBSPOT_APP_URL": f"http://localhost:{ports.simulator}",
        }
    return World(ports, {name: value for name, value in settings.items() if value})


def _wished(given: Mapping[str, str], name: str, usual: int) -> int:
    try:
        port = int(given.get(name, usual))
    except ValueError:
        port = 0
    if not 0 < port <= LAST_PORT:
        raise BadPort(f"{name} is malformed (a port, such as {usual})")
    return port
