"""Every setting, declared once. Any `X` may come from the file named by `X_FILE`.

`make docs` writes `.env.example` and `docs/settings.md` from these declarations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import parse_qsl, unquote, urlsplit

from shared import setting_parsers as parsers
from shared.app_settings import APP_VARIABLES, FILE_VARIABLE, is_empty_file, read_apps
from shared.hubspot_apps import HubSpotApp
from shared.net.addresses import is_private_host
from shared.setting_fields import BadSetting, Process, Source, list_declared, read_setting, setting

LOG_LEVELS = ("debug", "info", "warning", "error")
WEB_AND_WORKER = (Process.WEB, Process.WORKER)
SECONDS_HINT = "seconds, more than 0, at most 86400"
SIGNING_KEY_HINT = "whsec_ and Base64 of 24 to 64 bytes: make one with: echo whsec_$(openssl rand -base64 32)"
FRACTION_HINT = "a fraction between 0 and 1"


class SettingsError(Exception):
    """One message that names every bad setting and what it should look like, never its value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations are in seconds."""

    #: By name; {} where none is described, and none is needed.
    apps: Mapping[str, HubSpotApp] = field(default_factory=dict)
    hubspot_apps_file: str = setting(
        FILE_VARIABLE,
        str,
        "",
        hint="the path of a TOML file with a table for each app",
        example="/etc/tokenkeeper/apps.toml",
        meaning="several apps, instead of the variables of one: [several-apps.md](several-apps.md)",
    )
    connect_link_keys: tuple[str, ...] = setting(
        "CONNECT_LINK_KEYS",
        partial(parsers.parse_key_list, min_bytes=32),
        (),
        hint="one key of 32 bytes or more, or several: newest,older",
        example="a-key-of-32-random-characters-or-more",
        meaning="keys, separated by commas, by which your product signs [connect links](connect-links.md): the first "
        "signs those of `tokenkeeper link`, all are accepted. Without one there are no links",
        is_secret=True,
    )
    connect_link_required: bool = setting(
        "CONNECT_LINK_REQUIRED",
        parsers.parse_boolean,
        False,
        hint="true or false",
        example="true",
        meaning="`true`: accounts are connected by a connect link or from HubSpot's Marketplace, not by `/install`",
    )
    return_to_origins: tuple[str, ...] = setting(
        "RETURN_TO_ORIGINS",
        parsers.parse_origins,
        (),
        hint="https://app.example.com, several separated by spaces; http only for localhost",
        example="https://app.example.com",
        meaning="origins of your product, separated by spaces, to which a connect link's `return_to` may lead",
    )
    marketplace_return_hosts: tuple[str, ...] = setting(
        "MARKETPLACE_RETURN_HOSTS",
        parsers.parse_host_patterns,
        ("app.hubspot.com", "app-*.hubspot.com"),
        hint="hosts separated by spaces, such as app-*.hubspot.com",
        example="app.hubspot.com app-*.hubspot.com",
        meaning="hosts that HubSpot's `returnUrl` of a Marketplace install may have, over https alone",
    )
    hubspot_api_url: str = setting(
        "HUBSPOT_API_URL",
        parsers.parse_hubspot_url,
        "https://api.hubapi.com",
        hint="https://api.hubapi.com; http only for this machine or a private network",
        example="http://localhost:8090",
        meaning="token, introspection, revocation and uninstall; the example is the simulator",
    )
    hubspot_app_url: str = setting(
        "HUBSPOT_APP_URL",
        parsers.parse_hubspot_url,
        "https://app.hubspot.com",
        hint="https://app.hubspot.com; http only for this machine or a private network",
        example="http://localhost:8090",
        meaning="the consent page",
    )
    hubspot_proxy: str = setting(
        "HUBSPOT_PROXY",
        parsers.parse_proxy_url,
        "",
        hint="http://user:password@proxy.internal:3128, or https://…",
        example="http://user:its-password@proxy.internal:3128",
        meaning="the egress proxy for calls to HubSpot, where there is no direct way out. `HTTPS_PROXY` and its like "
        "are not read",
        is_secret=True,
    )
    token_keys: tuple[str, ...] = setting(
        "TOKEN_KEYS",
        parsers.parse_token_keys,
        (),
        hint="Fernet keys, newest first: make one with: tokenkeeper keys new",
        example="newest,older",
        meaning="Fernet keys, separated by commas: the first encrypts, all decrypt. Make one with "
        "`tokenkeeper keys new`. **Losing all of them means that every account must be installed again**",
        required_by=WEB_AND_WORKER,
        is_secret=True,
        source=Source.FIRST_START,
    )
    secret_key: str = setting(
        "SECRET_KEY",
        partial(parsers.parse_secret, min_length=16),
        "",
        hint="16 random characters or more",
        example="32-random-characters-or-more-xyz",
        meaning="signs the OAuth state and the browser's cookies. After a change, those who are just installing "
        "start again; nothing else is lost",
        required_by=(Process.WEB,),
        is_secret=True,
        source=Source.FIRST_START,
    )
    operator_password: str = setting(
        "OPERATOR_PASSWORD",
        partial(parsers.parse_password, min_length=8),
        "",
        hint="8 ASCII characters or more",
        example="correct-horse-battery-staple",
        meaning="8 ASCII characters or more; HTTP Basic password of user `operator`, for web's pages and Flower",
        required_by=(Process.WEB, Process.FLOWER),
        is_secret=True,
        source=Source.FIRST_START,
    )
    metrics_password: str = setting(
        "METRICS_PASSWORD",
        partial(parsers.parse_secret, min_length=8),
        "",
        hint="8 characters or more",
        example="another-horse-battery-staple",
        meaning="HTTP Basic password of user `metrics`, who may read `/metrics` and nothing else; where it is not set, "
        "the operator's password is that user's, too",
        is_secret=True,
    )
    alert_webhook_url: str = setting(
        "ALERT_WEBHOOK_URL",
        parsers.parse_webhook_url,
        "",
        hint="https://…, and no link-local address",
        example="https://hooks.slack.com/services/T000/B000/XXXX",
        meaning="where alerts are posted: [alerts.md](alerts.md)",
        is_secret=True,  # of Slack's, the URL itself
    )
    alert_webhook_secrets: tuple[str, ...] = setting(
        "ALERT_WEBHOOK_SECRET",
        parsers.parse_webhook_secrets,
        (),
        hint=SIGNING_KEY_HINT,
        example="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        meaning="signs alerts ([Standard Webhooks](alerts.md#the-signature)): one, or several separated by commas "
        "while one is replaced",
        is_secret=True,
    )
    events_webhook_url: str = setting(
        "EVENTS_WEBHOOK_URL",
        parsers.parse_webhook_url,
        "",
        hint="https://…, and no link-local address",
        example="https://product.example.com/hubspot-events",
        meaning="where our own product is told what happens to connections: [events.md](events.md)",
        is_secret=True,
    )
    events_webhook_secrets: tuple[str, ...] = setting(
        "EVENTS_WEBHOOK_SECRET",
        parsers.parse_webhook_secrets,
        (),
        hint=SIGNING_KEY_HINT,
        example="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        meaning="signs these events: one, or several separated by commas while one is replaced",
        is_secret=True,
    )
    refresh_from: float = setting(
        "REFRESH_FROM",
        parsers.parse_fraction,
        0.6,
        hint=FRACTION_HINT,
        example="0.5",
        meaning="a refresh falls due at a point of a token's life between this fraction,",
    )
    refresh_until: float = setting(
        "REFRESH_UNTIL",
        parsers.parse_fraction,
        0.75,
        hint=FRACTION_HINT,
        example="0.7",
        meaning="and this one, spread over accounts. While HubSpot answers, every token that is served has "
        "`1 - REFRESH_UNTIL` of its life left, less a sweep and a call",
    )
    sweep_seconds: float = setting(
        "SWEEP_SECONDS",
        parsers.parse_seconds,
        2.0,
        hint=SECONDS_HINT,
        example="5",
        meaning="how often beat looks for due work",
    )
    journal_seconds: float = setting(
        "JOURNAL_SECONDS",
        parsers.parse_pause,
        10.0,
        hint="seconds, at most 3600; 0 to turn it off",
        example="30",
        meaning="how often HubSpot's Webhooks Journal is read for uninstalls ([uninstalls.md](uninstalls.md)); 0 turns "
        "it off: then an uninstall is noticed at the next refresh",
    )
    http_timeout_seconds: float = setting(
        "HTTP_TIMEOUT_SECONDS",
        parsers.parse_seconds,
        20.0,
        hint=SECONDS_HINT,
        example="10",
        meaning="one call to HubSpot, as a whole",
    )
    lease_seconds: float = setting(
        "LEASE_SECONDS",
        parsers.parse_seconds,
        60.0,
        hint=SECONDS_HINT,
        example="90",
        meaning="how long a claimed row belongs to one worker; at least twice `HTTP_TIMEOUT_SECONDS` plus 5",
    )
    refresh_concurrency: int = setting(
        "REFRESH_CONCURRENCY",
        partial(parsers.parse_integer, least=1, most=10_000),
        400,
        hint="a number from 1 to 10000",
        example="50",
        meaning="calls to HubSpot in flight per pool process of a worker",
    )
    trusted_proxies: int = setting(
        "TRUSTED_PROXIES",
        partial(parsers.parse_integer, least=0, most=10),
        0,
        hint="a number from 0 to 10",
        example="1",
        meaning="how many proxies in front of web add to `X-Forwarded-For`: web limits how often one address may ask "
        "([security.md](security.md#web)). At 0 the header is not read: behind a proxy, all people are then "
        "one address",
    )
    log_format: str = setting(
        "LOG_FORMAT",
        partial(parsers.parse_choice, choices=("text", "json")),
        "text",
        hint="text or json",
        example="json",
        meaning="`text` for people, `json` for machines",
    )
    log_level: str = setting(
        "LOG_LEVEL",
        partial(parsers.parse_choice, choices=LOG_LEVELS),
        "info",
        hint=", ".join(LOG_LEVELS),
        example="debug",
        meaning="`debug`, `info`, `warning` or `error`",
    )
    database_url: str = setting(
        "DATABASE_URL",
        parsers.parse_database_url,
        "",
        hint="postgresql://user:password@host/db",
        example="postgresql://keeper:its-password@db:5432/tokenkeeper?sslmode=verify-full",
        meaning="also `postgres://`, `postgresql+psycopg2://`. Percent-encode what is not a letter or digit in the "
        "password: `%40` for `@`",
        required_by=WEB_AND_WORKER,
        is_secret=True,
        source=Source.DEPLOYMENT,
    )
    redis_url: str = setting(
        "REDIS_URL",
        parsers.parse_broker_url,
        "",
        hint="redis://host:6379/0, or rediss://… for TLS",
        example="rediss://:its-password@cache:6379/0",
        meaning="the broker; also `redis://`, `unix:///run/redis.sock?db=0`, "
        "`sentinel://host:26379/0?master_name=mymaster`, and [several of these](growth.md#redis-sentinel). "
        "`rediss://` verifies the server's certificate: `?ssl_ca_certs=/path` names its authority, and "
        "`?ssl_cert_reqs=none` takes any",
        required_by=tuple(Process),
        is_secret=True,
        source=Source.DEPLOYMENT,
    )
    web_database_url: str = setting(
        "WEB_DATABASE_URL",
        parsers.parse_database_url,
        "",
        hint="what DATABASE_URL is to web",
        example="postgresql://tk_web:password@localhost:5432/tokenkeeper",
        meaning="for `tokenkeeper roles` alone: the login that it makes for web, which web then has as its "
        "`DATABASE_URL` ([operations.md](operations.md#database-roles))",
        is_secret=True,
        source=Source.DEPLOYMENT,
    )
    worker_database_url: str = setting(
        "WORKER_DATABASE_URL",
        parsers.parse_database_url,
        "",
        hint="what DATABASE_URL is to the worker",
        example="postgresql://tk_worker:password@localhost:5432/tokenkeeper",
        meaning="the same for the worker",
        is_secret=True,
        source=Source.DEPLOYMENT,
    )

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
