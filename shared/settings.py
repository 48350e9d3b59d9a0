"""Every setting, read in one place from the environment; any `X` may come from the file named `X_FILE`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from shared import setting_parsers

T = TypeVar("T")

_LEVELS = ("debug", "info", "warning", "error")
_CALLBACK_HINT = "https://your.host/oauth/callback; http only for localhost"
_VERSION_HINT = "2026-09, 2026-03 or v3; HubSpot ends v1 on 2027-02-16"
#: Bytes.
LARGEST_FILE = 64 * 1024
#: What a process that changes connections cannot do without.
REQUIRED = (
    "DATABASE_URL",
    "REDIS_URL",
    "HUBSPOT_CLIENT_ID",
    "HUBSPOT_CLIENT_SECRET",
    "HUBSPOT_REDIRECT_URI",
    "HUBSPOT_SCOPES",
    "TOKEN_KEYS",
    "SECRET_KEY",
    "OPERATOR_PASSWORD",
)
DATABASE_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
BROKER_SCHEMES = ("redis", "rediss", "sentinel", "unix", "redis+socket")


class SettingsError(Exception):
    """One message that names every bad setting and what it should look like, never its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """See docs/settings.md. Durations are in seconds."""

    database_url: str = field(repr=False)
    web_database_url: str = field(repr=False)
    worker_database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    hubspot_client_id: str
    hubspot_client_secrets: tuple[str, ...] = field(repr=False)
    hubspot_redirect_uri: str
    hubspot_scopes: tuple[str, ...]
    hubspot_optional_scopes: tuple[str, ...]
    hubspot_api_url: str
    hubspot_app_url: str
    hubspot_api_version: str
    token_keys: tuple[str, ...] = field(repr=False)
    secret_key: str = field(repr=False)
    operator_password: str = field(repr=False)
    refresh_from: float
    refresh_until: float
    sweep_seconds: float
    http_timeout_seconds: float
    lease_seconds: float
    refresh_concurrency: int
    max_refreshes_per_second: float
    trusted_proxies: int
    alert_webhook_url: str = field(repr=False)
    alert_webhook_secret: str = field(repr=False)
    log_format: str
    log_level: str

    @classmethod
    def from_env(cls, environ: Mapping[str, str], needs: Collection[str] = REQUIRED) -> Settings:
        """Raises SettingsError. What is required, but not among `needs`, may be absent: it is empty then."""
        return _Reader(environ, needs).settings()

    def list_secrets(self) -> tuple[str, ...]:
        """What must never show in a log."""
        webhook = (self.alert_webhook_url, self.alert_webhook_secret)  # Slack's URL is itself the secret
        single = (self.secret_key, self.operator_password, *webhook)
        databases = (self.database_url, self.web_database_url, self.worker_database_url)
        passwords = (urlsplit(url).password or "" for url in (*databases, *self.redis_url.split(";")))
        return (*self.hubspot_client_secrets, *self.token_keys, *filter(None, (*single, *passwords)))


class TooLarge(ValueError):
    """A file holds more than any setting has."""


class _Reader:
    """Reads setting after setting and gathers what is wrong, so that one message can tell it all."""

    def __init__(self, environ: Mapping[str, str], needs: Collection[str]) -> None:
        self._environ = environ
        self._needs = needs
        self._problems: list[str] = []

    def settings(self) -> Settings:
        settings = Settings(
            database_url=self.read(
                "DATABASE_URL", setting_parsers.url(DATABASE_SCHEMES), "postgresql://user:password@host/db", ""
            ),
            web_database_url=self.read(
                "WEB_DATABASE_URL", setting_parsers.url(DATABASE_SCHEMES), "what DATABASE_URL is to web", ""
            ),
            worker_database_url=self.read(
                "WORKER_DATABASE_URL", setting_parsers.url(DATABASE_SCHEMES), "what DATABASE_URL is to the worker", ""
            ),
            redis_url=self.read("REDIS_URL", setting_parsers.broker(BROKER_SCHEMES), "redis://host:6379/0", ""),
            hubspot_client_id=self.read("HUBSPOT_CLIENT_ID", setting_parsers.word, "the app's client id", ""),
            hubspot_client_secrets=self.read(
                "HUBSPOT_CLIENT_SECRET", setting_parsers.listed, "one secret, or several: a,b", ()
            ),
            hubspot_redirect_uri=self.read("HUBSPOT_REDIRECT_URI", setting_parsers.callback, _CALLBACK_HINT, ""),
            hubspot_scopes=self.read("HUBSPOT_SCOPES", setting_parsers.spaced, "scopes separated by spaces", ()),
            hubspot_optional_scopes=self.read(
                "HUBSPOT_OPTIONAL_SCOPES", setting_parsers.spaced, "scopes separated by spaces", ()
            ),
            hubspot_api_url=self.read(
                "HUBSPOT_API_URL", setting_parsers.web, "https://api.hubapi.com", "https://api.hubapi.com"
            ),
            hubspot_app_url=self.read(
                "HUBSPOT_APP_URL", setting_parsers.web, "https://app.hubspot.com", "https://app.hubspot.com"
            ),
            hubspot_api_version=self.read(
                "HUBSPOT_API_VERSION", setting_parsers.version, _VERSION_HINT, setting_parsers.API_VERSIONS[0]
            ),
            token_keys=self.read(
                "TOKEN_KEYS", setting_parsers.keys, "Fernet keys, newest first: make one with: tokenkeeper keys new", ()
            ),
            secret_key=self.read("SECRET_KEY", setting_parsers.at_least(16), "16 random characters or more", ""),
            operator_password=self.read("OPERATOR_PASSWORD", setting_parsers.at_least(8), "8 characters or more", ""),
            refresh_from=self.read("REFRESH_FROM", setting_parsers.fraction, "a fraction between 0 and 1", 0.6),
            refresh_until=self.read("REFRESH_UNTIL", setting_parsers.fraction, "a fraction between 0 and 1", 0.75),
            sweep_seconds=self.read(
                "SWEEP_SECONDS", setting_parsers.seconds, "seconds, more than 0, at most 86400", 2.0
            ),
            http_timeout_seconds=self.read(
                "HTTP_TIMEOUT_SECONDS", setting_parsers.seconds, "seconds, more than 0, at most 86400", 20.0
            ),
            lease_seconds=self.read(
                "LEASE_SECONDS", setting_parsers.seconds, "seconds, more than 0, at most 86400", 60.0
            ),
            refresh_concurrency=self.read(
                "REFRESH_CONCURRENCY", setting_parsers.count(1, 10_000), "a number from 1 to 10000", 200
            ),
            max_refreshes_per_second=self.read(
                "MAX_REFRESHES_PER_SECOND", setting_parsers.not_negative, "a number, 0 for no cap", 0.0
            ),
            trusted_proxies=self.read("TRUSTED_PROXIES", setting_parsers.count(0, 10), "a number from 0 to 10", 0),
            alert_webhook_url=self.read(
                "ALERT_WEBHOOK_URL", setting_parsers.webhook, "https://…, and no link-local address", ""
            ),
            alert_webhook_secret=self.read(
                "ALERT_WEBHOOK_SECRET", setting_parsers.word, "the secret that signs alerts", ""
            ),
            log_format=self.read("LOG_FORMAT", setting_parsers.one_of("text", "json"), "text or json", "text"),
            log_level=self.read("LOG_LEVEL", setting_parsers.one_of(*_LEVELS), ", ".join(_LEVELS), "info"),
        )
        self._together(settings)
        if self._problems:
            raise SettingsError("bad settings: " + "; ".join(self._problems))
        return settings

    def read(self, name: str, parse: Callable[[str], T], hint: str, default: T) -> T:
        text = self._text(name)
        if text is None:
            return default
        if not text:
            if name in self._needs:
                self._problems.append(f"{name} is missing ({hint})")
            return default
        try:
            return parse(text)
        except (ValueError, OverflowError):
            self._problems.append(f"{name} is malformed ({hint})")
            return default

    def _text(self, name: str) -> str | None:
        """The setting's text, "" where it is not set; None where its file was trouble, which is noted."""
        if text := self._environ.get(name, "").strip():
            return text
        path = self._environ.get(f"{name}_FILE", "").strip()
        if not path:
            return ""
        try:
            return _text_of(Path(path)).strip()
        except (OSError, ValueError) as error:
            self._problems.append(f"{name}_FILE cannot be read ({type(error).__name__}: a file that holds {name})")
            return None

    def _together(self, settings: Settings) -> None:
        if settings.refresh_from > settings.refresh_until:
            self._problems.append("REFRESH_FROM is above REFRESH_UNTIL (0.6 and 0.75, say)")
        if settings.lease_seconds < 2 * settings.http_timeout_seconds + 5:
            self._problems.append("LEASE_SECONDS is too short (at least twice HTTP_TIMEOUT_SECONDS plus 5)")


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise TooLarge
    return content.decode()
