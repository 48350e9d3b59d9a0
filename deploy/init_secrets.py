"""Generates the secrets of a containerised run, once, and hands each service only its own.

`python -m deploy.init_secrets` runs before every other service of docker-compose.yml. A generated secret is stored in a
volume of its own and never overwritten; a value in .env wins over it. From both, each start writes every service's
folder again, so that a HubSpot app that was put into .env (or taken out) takes effect at the next start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_urlsafe

from cryptography.fernet import Fernet

from shared.settings import REQUIRED, Settings, SettingsError
from shared.settings.apps_file import FILE_VARIABLE
from shared.settings.declaration import BadSetting, read_text_file

SECRETS_FOLDER = Path("/var/lib/tokenkeeper/secrets")
#: sysexits.h: a configuration error.
EX_CONFIG = 78

#: What is generated at the first start.
SECRET_GENERATORS: Mapping[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": lambda: token_urlsafe(32),
    "POSTGRES_WEB_PASSWORD": lambda: token_urlsafe(32),
    "POSTGRES_WORKER_PASSWORD": lambda: token_urlsafe(32),
    "REDIS_PASSWORD": lambda: token_urlsafe(32),
    "TOKEN_KEYS": lambda: Fernet.generate_key().decode(),
    "SECRET_KEY": lambda: token_urlsafe(32),
    "OPERATOR_PASSWORD": lambda: token_urlsafe(12),
    "SIMULATOR_CLIENT_SECRET": lambda: token_urlsafe(24),
}
#: A HubSpot app: all of these, or none.
APP_SETTINGS = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_SCOPES")
#: Several apps instead: the content of the file that HUBSPOT_APPS_FILE names.
APPS = "HUBSPOT_APPS"
#: Meaningless without an app.
APP_ONLY_SETTINGS = ("HUBSPOT_API_URL", "HUBSPOT_APP_URL")
HUBSPOT_SETTINGS = (
    *APP_SETTINGS,
    "HUBSPOT_REDIRECT_URI",
    "HUBSPOT_OPTIONAL_SCOPES",
    "HUBSPOT_CONDITIONAL_SCOPES",
    "HUBSPOT_API_VERSION",
    "HUBSPOT_PROXY",
    *APP_ONLY_SETTINGS,
)
#: Of web alone, and not required.
WEB_SETTINGS = ("METRICS_PASSWORD", "CONNECT_LINK_KEYS")
ALERT_SETTINGS = ("ALERT_WEBHOOK_URL", "ALERT_WEBHOOK_SECRET")
#: Of the worker alone, and not required.
EVENT_SETTINGS = ("EVENTS_WEBHOOK_URL", "EVENTS_WEBHOOK_SECRET")
STORE_SETTINGS = ("REDIS_URL", "TOKEN_KEYS")
#: The files that each service gets, in a volume of its own: it can read no other service's.
SERVICE_FILES: Mapping[str, tuple[str, ...]] = {
    "postgres": ("POSTGRES_PASSWORD",),
    "redis": ("REDIS_PASSWORD", "redis.conf"),
    "migrate": ("DATABASE_URL", "WEB_DATABASE_URL", "WORKER_DATABASE_URL"),
    "web": (
        "WEB_DATABASE_URL",
        *STORE_SETTINGS,
        APPS,
        *HUBSPOT_SETTINGS,
        *ALERT_SETTINGS,
        *WEB_SETTINGS,
        "SECRET_KEY",
        "OPERATOR_PASSWORD",
    ),
    "worker": ("WORKER_DATABASE_URL", *STORE_SETTINGS, APPS, *HUBSPOT_SETTINGS, *ALERT_SETTINGS, *EVENT_SETTINGS),
    "beat": ("REDIS_URL",),
    "flower": ("REDIS_URL", "OPERATOR_PASSWORD"),
    "simulator": (*APP_SETTINGS, "HUBSPOT_REDIRECT_URI"),
}
#: These images run as users with other ids, so their files are readable by all; no other service mounts their volumes.
WORLD_READABLE = ("postgres", "redis")
SUMMARY = """\
tokenkeeper talks to {hubspot}.
Connect an account:       http://localhost:{port}/
The operator's password:  docker compose exec web cat /run/tokenkeeper/OPERATOR_PASSWORD
Read a token:             docker compose exec postgres psql -U tokenkeeper \\
                            -c "SELECT access_token FROM hubspot.tokens WHERE hub_id = 62515\""""


class IncompleteApp(Exception):
    """Only a part of a HubSpot app is configured; the message is one line that says what is missing."""


def main(environ: Mapping[str, str], folder: Path = SECRETS_FOLDER) -> int:
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    # 1. the stored secrets, and new ones for those that are missing
    stored = {name: read_secret(folder / "kept" / name) or generate() for name, generate in SECRET_GENERATORS.items()}
    # 2. check every setting before anything is written
    try:
        if apps := _read_apps_file(given):
            given[APPS] = apps
        simulated = not has_hubspot_app(given)
        values = make_values(given, stored, simulated=simulated)
        checked = {
            name: values[name]
            for name in (*REQUIRED, *HUBSPOT_SETTINGS, *ALERT_SETTINGS, *EVENT_SETTINGS, *WEB_SETTINGS)
        }
        Settings.from_env({**checked, FILE_VARIABLE: given.get(FILE_VARIABLE, "")})
    except (IncompleteApp, SettingsError, BadSetting) as error:
        print(f"tokenkeeper: {error}", file=sys.stderr)
        return EX_CONFIG
    # 3. store them; every key that was ever used stays
    stored["TOKEN_KEYS"] = merge_keys(values["TOKEN_KEYS"], stored["TOKEN_KEYS"])
    for name, value in stored.items():
        write_secret(folder / "kept" / name, value, mode=0o400)
    # 4. hand them out
    for service, names in SERVICE_FILES.items():
        is_needed = service != "simulator" or simulated
        write_service_files(folder / service, {name: values[name] for name in names} if is_needed else {})
    hubspot = "the simulator: .env holds no HubSpot app" if simulated else "HubSpot, with the app of .env"
    print(SUMMARY.format(hubspot=hubspot, port=given.get("WEB_PORT", "5000")))
    return 0


def _read_apps_file(given: Mapping[str, str]) -> str:
    """The text of HUBSPOT_APPS_FILE; "" where there is none. Raises BadSetting."""
    path = given.get(FILE_VARIABLE)
    return read_text_file(Path(path), FILE_VARIABLE, "readable for the user 10001 of the containers") if path else ""


def read_secret(path: Path) -> str:
    """Empty where there is no such file."""
    return path.read_text().strip() if path.exists() else ""


def has_hubspot_app(given: Mapping[str, str]) -> bool:
    """`given` has APPS where there is a file of apps. Raises IncompleteApp where only a part of an app is given."""
    if APPS in given:
        return True
    missing = [name for name in APP_SETTINGS if name not in given]
    present = [name for name in (*APP_SETTINGS, *APP_ONLY_SETTINGS) if name in given]
    if present and missing:
        raise IncompleteApp(
            f".env gives {', '.join(present)}, but not {', '.join(missing)}: "
            f"a HubSpot app needs {', '.join(APP_SETTINGS)}; leave all of them out to use the simulator"
        )
    return not missing


def make_values(given: Mapping[str, str], stored: Mapping[str, str], *, simulated: bool) -> dict[str, str]:
    """The content of every file of SERVICE_FILES; "" where the service is to use its default."""
    values = {name: given.get(name, stored[name]) for name in ("TOKEN_KEYS", "SECRET_KEY", "OPERATOR_PASSWORD")}
    values |= {
        name: given.get(name, "") for name in (*HUBSPOT_SETTINGS, *ALERT_SETTINGS, *EVENT_SETTINGS, *WEB_SETTINGS)
    }
    values[APPS] = given.get(APPS, "")
    if "HUBSPOT_REDIRECT_URI" not in given and not values[APPS]:
        values["HUBSPOT_REDIRECT_URI"] = f"http://localhost:{given.get('WEB_PORT', '5000')}/oauth/callback"
    if simulated:
        values |= {
            "HUBSPOT_CLIENT_ID": "tokenkeeper-demo",
            "HUBSPOT_CLIENT_SECRET": stored["SIMULATOR_CLIENT_SECRET"],
            "HUBSPOT_SCOPES": "oauth crm.objects.contacts.read",
            "HUBSPOT_API_URL": "http://simulator:8090",
            "HUBSPOT_APP_URL": f"http://localhost:{given.get('SIMULATOR_PORT', '8090')}",
            "HUBSPOT_PROXY": "",
        }
    postgres, redis = stored["POSTGRES_PASSWORD"], stored["REDIS_PASSWORD"]
    return values | {
        "POSTGRES_PASSWORD": postgres,
        "REDIS_PASSWORD": redis,
        "redis.conf": f"requirepass {redis}",
        "DATABASE_URL": make_database_url("tokenkeeper", postgres),
        "WEB_DATABASE_URL": make_database_url("tokenkeeper_web_login", stored["POSTGRES_WEB_PASSWORD"]),
        "WORKER_DATABASE_URL": make_database_url("tokenkeeper_worker_login", stored["POSTGRES_WORKER_PASSWORD"]),
        "REDIS_URL": f"redis://:{redis}@redis:6379/0",
    }


def make_database_url(user: str, password: str) -> str:
    return f"postgresql://{user}:{password}@postgres:5432/tokenkeeper"


def merge_keys(newest: str, others: str) -> str:
    """Every key once, the newest first, separated by commas. A lost key would make stored tokens unreadable."""
    keys = [key.strip() for key in f"{newest},{others}".split(",")]
    return ",".join(dict.fromkeys(key for key in keys if key))


def write_service_files(folder: Path, values: Mapping[str, str]) -> None:
    """Removes other files, such as the simulator's once there is a HubSpot app."""
    for path in folder.iterdir():
        if path.name not in values:
            path.unlink()
    for name, value in values.items():
        write_secret(folder / name, value, mode=0o444 if folder.name in WORLD_READABLE else 0o400)


def write_secret(path: Path, value: str, mode: int) -> None:
    """Replaces the file atomically: a reader, or the next start after a power cut, finds the old or the new one."""
    if path.exists() and read_secret(path) == value:
        return
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(value + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


if __name__ == "__main__":
    sys.exit(main(os.environ))  # noqa: TID251  an entry point
