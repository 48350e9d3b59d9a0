"""The configuration of one run on a laptop: its ports, its secrets, whether HubSpot is simulated, and every setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe

from deploy.init_secrets import SECRET_GENERATORS, has_hubspot_app, merge_keys, read_secret, write_secret
from sandbox.ports import LAST_PORT, NoFreePort, find_free_port_from

#: Settings that are generated where they are not given.
GENERATED_SETTINGS = ("TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD", "CONNECT_LINK_KEYS")
#: In a deployment the operator makes the keys of connect links, because our product needs them too.
_GENERATORS: Mapping[str, Callable[[], str]] = {**SECRET_GENERATORS, "CONNECT_LINK_KEYS": lambda: token_urlsafe(32)}
SIMULATED_CLIENT_ID = "tokenkeeper-demo"
SIMULATED_SCOPES = "oauth crm.objects.contacts.read"
SIMULATED_TOKEN_SECONDS = 120  #: short, so that one can watch a refresh happen


class InvalidPort(Exception):
    """WEB_PORT, FLOWER_PORT or SIMULATOR_PORT cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Ports:
    web: int
    flower: int
    simulator: int | None  #: None: no simulator runs


@dataclass(frozen=True, slots=True)
class RunConfig:
    ports: Ports
    settings: Mapping[str, str] = field(repr=False)

    @property
    def is_simulated(self) -> bool:
        return self.ports.simulator is not None

    @property
    def web_url(self) -> str:
        return f"http://localhost:{self.ports.web}/"


def merge_settings(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> dict[str, str]:
    """The settings of the environment and of .env that are not empty. The environment wins, also by an empty value."""
    merged = {**dotenv, **environ}
    for name in dotenv:
        if name.endswith("_FILE") and environ.get(name.removesuffix("_FILE")):
            del merged[name]  # X of the environment wins over X_FILE of .env
    return {name: value.strip() for name, value in merged.items() if value.strip()}


def needs_simulator(given: Mapping[str, str]) -> bool:
    """Raises init_secrets.IncompleteApp where only a part of a HubSpot app is configured."""
    return not has_hubspot_app({name.removesuffix("_FILE"): value for name, value in given.items()})


def choose_ports(given: Mapping[str, str], say: Callable[[str], None], *, is_simulated: bool) -> Ports:
    """Says where a port is not the wanted one. Raises InvalidPort."""
    chosen: set[int] = set()

    def choose(name: str, default: int) -> int:
        wanted = _parse_port(given, name, default)
        try:
            port = find_free_port_from(wanted, frozenset(chosen))
        except NoFreePort as error:
            raise InvalidPort(f"{error}: set {name} to a free one") from None
        if port != wanted:
            say(f"port {wanted} is taken: {port} instead ({name} chooses another)")
        chosen.add(port)
        return port

    web, flower = choose("WEB_PORT", 5000), choose("FLOWER_PORT", 5555)
    return Ports(web, flower, choose("SIMULATOR_PORT", 8090) if is_simulated else None)


def _parse_port(given: Mapping[str, str], name: str, default: int) -> int:
    try:
        port = int(given.get(name, default))
    except ValueError:
        port = 0
    if not 0 < port <= LAST_PORT:
        raise InvalidPort(f"{name} is malformed (a port, such as {default})")
    return port


def load_secrets(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """The generated settings and the simulator's client secret.

    Each is generated once and stored in a file that only its owner can read. What is given wins, but is not stored,
    except for keys of TOKEN_KEYS: every key that was ever used stays.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    names = (*GENERATED_SETTINGS, "SIMULATOR_CLIENT_SECRET")
    secrets = {name: read_secret(folder / name) or _GENERATORS[name]() for name in names}
    if "TOKEN_KEYS" in given:
        secrets["TOKEN_KEYS"] = merge_keys(given["TOKEN_KEYS"], secrets["TOKEN_KEYS"])
    for name, value in secrets.items():
        write_secret(folder / name, value, mode=0o600)
    for name in GENERATED_SETTINGS:
        if f"{name}_FILE" in given:
            secrets[name] = ""
        if name in given and name != "TOKEN_KEYS":
            secrets[name] = given[name]
    return secrets


def make_run_config(
    given: Mapping[str, str], ports: Ports, secrets: Mapping[str, str], urls: Mapping[str, str]
) -> RunConfig:
    """`urls`: DATABASE_URL and REDIS_URL."""
    settings = {name: secrets[name] for name in GENERATED_SETTINGS} | dict(urls)
    if "HUBSPOT_APPS_FILE" in given:
        settings["HUBSPOT_APPS_FILE"] = str(Path(given["HUBSPOT_APPS_FILE"]).absolute())  # for other folders, too
    elif "HUBSPOT_REDIRECT_URI_FILE" not in given:
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
    return RunConfig(ports, {name: value for name, value in settings.items() if value})
