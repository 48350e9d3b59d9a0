"""Makes the secrets of a containerised run, once, and hands each service only its own: `python -m deploy.init_secrets`.

What was made is kept in a volume of its own and never overwritten; what .env gives wins. From both, each start writes
every service's folder anew, so that a HubSpot app put into .env (or taken out) takes effect at the next start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_urlsafe

from cryptography.fernet import Fernet

from shared.settings import REQUIRED, Settings, SettingsError

SECRETS = Path("/var/lib/tokenkeeper/secrets")
#: sysexits.h: a configuration error.
EX_CONFIG = 78

#: What is made at the first start, and how.
MADE: Mapping[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": lambda: token_urlsafe(32),
    "POSTGRES_WEB_PASSWORD": lambda: token_urlsafe(32),
    "POSTGRES_WORKER_PASSWORD": lambda: token_urlsafe(32),
    "REDIS_PASSWORD": lambda: token_urlsafe(32),
    "TOKEN_KEYS": lambda: Fernet.generate_key().decode(),
    "SECRET_KEY": lambda: token_urlsafe(32),
    "OPERATOR_PASSWORD": lambda: token_urlsafe(12),
    "SIMULATOR_CLIENT_SECRET": lambda: token_urlsafe(24),
}
#: What makes an app, and what makes no sense without one: any of them given means that all of APP is needed.
APP = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_SCOPES")
WITH_APP_ONLY = ("HUBSPOT_API_URL", "HUBSPOT_APP_URL")

HUBSPOT = (*APP, "HUBSPOT_REDIRECT_URI", "HUBSPOT_OPTIONAL_SCOPES", "HUBSPOT_API_VERSION", *WITH_APP_ONLY)
ALERTS = ("ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET")
STORE = ("REDIS_URL", "TOKEN_KEYS")
#: Who is handed what. A volume each, so that nobody can read more than this.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "postgres": ("POSTGRES_PASSWORD",),
    "redis": ("REDIS_PASSWORD", "redis.conf"),
    "migrate": ("DATABASE_URL", "WEB_DATABASE_URL", "WORKER_DATABASE_URL"),
    "web": ("WEB_DATABASE_URL", *STORE, *HUBSPOT, *ALERTS, "SECRET_KEY", "OPERATOR_PASSWORD"),
    "worker": ("WORKER_DATABASE_URL", *STORE, *HUBSPOT, *ALERTS),
    "beat": ("REDIS_URL",),
    "flower": ("REDIS_URL", "OPERATOR_PASSWORD"),
    "simulator": (*APP, "HUBSPOT_REDIRECT_URI"),
}
#: Their images run as users whose numbers are their own affair; nobody else mounts their volumes.
FOREIGN = ("postgres", "redis")
WELCOME = """\
tokenkeeper talks to {where}.
Connect an account:       http://localhost:{port}/
The operator's password:  docker compose exec web cat /run/tokenkeeper/OPERATOR_PASSWORD
Read a token:             docker compose exec postgres psql -U tokenkeeper \\
                            -c "SELECT access_token FROM hubspot.tokens WHERE hub_id = 62515\""""


class Refused(Exception):
    """One line that says what in .env must change."""


def main(given: Mapping[str, str], secrets: Path = SECRETS) -> int:
    given = {name: value.strip() for name, value in given.items() if value.strip()}
    try:
        made = {name: kept(secrets / "kept" / name) or make() for name, make in MADE.items()}
        values = everything(given, made)
        Settings.from_env({name: values[name] for name in (*REQUIRED, *HUBSPOT, *ALERTS)})
    except (Refused, SettingsError) as error:
        print(f"tokenkeeper: {error}", file=sys.stderr)
        return EX_CONFIG
    made["TOKEN_KEYS"] = joined(values["TOKEN_KEYS"], made["TOKEN_KEYS"])
    for name, value in made.items():
        write(secrets / "kept" / name, value, mode=0o400)
    for folder, names in FOLDERS.items():
        idle = folder == "simulator" and app_given(given)
        hand_over(secrets / folder, {} if idle else {name: values[name] for name in names})
    print(welcome(given))
    return 0


def kept(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def everything(given: Mapping[str, str], made: Mapping[str, str]) -> dict[str, str]:
    """Every value that any service is handed; "" where the service is to use its default. Raises Refused."""
    ours = {name: given.get(name, made[name]) for name in ("TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD")}
    postgres, redis = made["POSTGRES_PASSWORD"], made["REDIS_PASSWORD"]
    return {
        **ours,
        **hubspot(given, made["SIMULATOR_CLIENT_SECRET"]),
        **{name: given.get(name, "") for name in ALERTS},
        "POSTGRES_PASSWORD": postgres,
        "REDIS_PASSWORD": redis,
        "redis.conf": f"requirepass {redis}",
        "DATABASE_URL": database_url("tokenkeeper", postgres),
        "WEB_DATABASE_URL": database_url("tokenkeeper_web_login", made["POSTGRES_WEB_PASSWORD"]),
        "WORKER_DATABASE_URL": database_url("tokenkeeper_worker_login", made["POSTGRES_WORKER_PASSWORD"]),
        "REDIS_URL": f"redis://:{redis}@redis:6379/0",
    }


def database_url(user: str, password: str) -> str:
    return f"postgresql://{user}:{password}@postgres:5432/tokenkeeper"


def hubspot(given: Mapping[str, str], simulator_secret: str) -> dict[str, str]:
    """HubSpot's settings: the app of .env, or the simulator's. Raises Refused where half an app is given."""
    web_port, simulator_port = given.get("WEB_PORT", "5000"), given.get("SIMULATOR_PORT", "8090")
    settings = {name: given.get(name, "") for name in HUBSPOT}
    settings["HUBSPOT_REDIRECT_URI"] = given.get("HUBSPOT_REDIRECT_URI", f"http://localhost:{web_port}/oauth/callback")
    if app_given(given):
        return settings
    return settings | {
        "HUBSPOT_CLIENT_ID": "tokenkeeper-demo",
        "HUBSPOT_CLIENT_SECRET": simulator_secret,
        "HUBSPOT_SCOPES": "oauth crm.objects.contacts.read",
        "HUBSPOT_API_URL": "http://simulator:8090",
        "HUBSPOT_APP_URL": f"http://localhost:{simulator_port}",
    }


def app_given(given: Mapping[str, str]) -> bool:
    """Whether .env holds a HubSpot app. Raises Refused where it holds only a part of one."""
    missing = [name for name in APP if name not in given]
    present = [name for name in (*APP, *WITH_APP_ONLY) if name in given]
    if present and missing:
        raise Refused(
            f".env gives {', '.join(present)}, but not {', '.join(missing)}: "
            f"a HubSpot app needs {', '.join(APP)}; leave all of them out to use the simulator"
        )
    return not missing


def joined(newest: str, others: str) -> str:
    """Every key ever used: the newest first, none twice. A lost key is a lost connection."""
    keys = [key.strip() for key in f"{newest},{others}".split(",")]
    return ",".join(dict.fromkeys(key for key in keys if key))


def hand_over(folder: Path, values: Mapping[str, str]) -> None:
    """The folder ends up with these files and no others, such as the simulator's once there is a real app."""
    for stale in folder.iterdir():
        if stale.name not in values:
            stale.unlink()
    for name, value in values.items():
        write(folder / name, value, mode=0o444 if folder.name in FOREIGN else 0o400)


def write(path: Path, value: str, mode: int) -> None:
    """In one step: whoever reads it, or pulls the plug, finds the old file or the new one, whole."""
    if path.exists() and kept(path) == value:
        return
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def welcome(given: Mapping[str, str]) -> str:
    where = "HubSpot, with the app of .env" if app_given(given) else "the simulator: .env holds no HubSpot app"
    return WELCOME.format(where=where, port=given.get("WEB_PORT", "5000"))


if __name__ == "__main__":
    sys.exit(main(os.environ))  # noqa: TID251  an entry point
