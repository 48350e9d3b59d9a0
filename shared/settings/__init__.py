"""Every setting, declared once: each in the module of its subject. Any `X` may come from the file named by `X_FILE`.

`make docs` writes `.env.example` and `docs/settings.md` from the declarations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.net.addresses import is_private_host
from shared.settings.apps_file import APP_VARIABLES, FILE_VARIABLE, is_empty_file, read_apps
from shared.settings.declaration import BadSetting, Process, list_declared, read_setting
from shared.settings.hubspot import HubSpotSettings
from shared.settings.hubspot_app import HubSpotApp
from shared.settings.installs import InstallSettings
from shared.settings.keys import KeySettings
from shared.settings.refreshes import RefreshSettings
from shared.settings.servers import ServerSettings
from shared.settings.webhooks import SIGNING_KEY_HINT, WebhookSettings


class SettingsError(Exception):
    """One message that names every bad setting and what it should look like, never its value."""


# A dataclass has the fields of its last base first: so the documentation lists HubSpot's settings first.
@dataclass(frozen=True)
class Settings(ServerSettings, RefreshSettings, WebhookSettings, KeySettings, InstallSettings, HubSpotSettings):
    """Durations are in seconds."""

    #: By name; {} where none is described, and none is needed.
    apps: Mapping[str, HubSpotApp] = field(default_factory=dict)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], needs: Collection[str] | None = None) -> Settings:
        """`needs` are the names that must be set; None: REQUIRED. Raises SettingsError."""
        needed = REQUIRED if needs is None else needs
        values, problems = {}, []
        for field_name, declared in list_declared(cls).items():
            try:
                values[field_name] = read_setting(declared, environ, is_needed=declared.name in needed)
            except BadSetting as error:
                problems.append(str(error))
        if is_empty_file(values.get("hubspot_apps_file", "")):
            values["hubspot_apps_file"] = ""
        apps, app_problems = read_apps(values.get("hubspot_apps_file", ""), environ, needed)
        settings = cls(apps=apps, **values)
        problems = [*app_problems, *problems, *_find_unusable_redirect_uris(settings)]
        if settings.refresh_from > settings.refresh_until:
            problems.append("REFRESH_FROM is above REFRESH_UNTIL (0.6 and 0.75, for example)")
        if settings.lease_seconds < 2 * settings.http_timeout_seconds + 5:
            problems.append("LEASE_SECONDS is too short (at least twice HTTP_TIMEOUT_SECONDS plus 5)")
        if settings.events_webhook_url and not settings.events_webhook_secrets:
            problems.append(f"EVENTS_WEBHOOK_SECRET is missing, which signs events ({SIGNING_KEY_HINT})")
        if problems:
            raise SettingsError("bad settings: " + "; ".join(problems))
        return settings

    def list_secrets(self) -> tuple[str, ...]:
        """What a log must never contain: secret settings, and of URLs with a password the password alone."""
        secrets = [self.secret_key, self.operator_password, self.alert_webhook_url, self.events_webhook_url]
        urls = (self.database_url, self.web_database_url, self.worker_database_url, self.hubspot_proxy)
        for url in (*urls, *self.redis_url.split(";")):
            password = urlsplit(url).password or ""
            in_query = dict(parse_qsl(urlsplit(url).query)).get("password", "")
            secrets += dict.fromkeys((password, unquote(password), in_query))
        client_secrets = [secret for app in self.apps.values() for secret in app.client_secrets]
        webhook_secrets = (*self.alert_webhook_secrets, *self.events_webhook_secrets)
        keys = (*self.token_keys, *self.connect_link_keys, *webhook_secrets)
        return (*client_secrets, *keys, *filter(None, secrets))


def _find_unusable_redirect_uris(settings: Settings) -> Iterator[str]:
    """HubSpot's own consent page takes http for the name localhost alone; a simulator takes any loopback address."""
    if is_private_host(urlsplit(settings.hubspot_app_url).hostname or ""):
        return
    for app in settings.apps.values():
        if app.redirect_uri.startswith("http://") and urlsplit(app.redirect_uri).hostname != "localhost":
            in_file = f"{FILE_VARIABLE}: [{app.name}] redirect_uri"
            name = in_file if settings.hubspot_apps_file else "HUBSPOT_REDIRECT_URI"
            yield f"{name} is refused by HubSpot (of the addresses with http it takes http://localhost alone)"


#: Field's name to setting.
DECLARED = {**APP_VARIABLES, **list_declared(Settings)}
#: What a process that does everything cannot start without.
REQUIRED = tuple(each.name for each in DECLARED.values() if each.required_by)


def list_required(process: Process) -> tuple[str, ...]:
    return tuple(each.name for each in DECLARED.values() if process in each.required_by)
