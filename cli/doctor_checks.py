"""What `tokenkeeper doctor` looks at, one finding each; a failure says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property, partial

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import Engine

from cli.doctor_findings import Fails, Finding, Level, Said, in_turn
from cli.output import told, watched
from shared.db.core.engine import make_engine
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.reports.connections import ConnectionReports, Overview
from shared.db.schema.migrate import check_schema
from shared.db.schema.server_info import read_server_info
from shared.dispatch import build_broker_config
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, UnknownRefusal
from shared.domain.provider import Condition
from shared.domain.sweep_liveness import is_sweep_overdue
from shared.hubspot.client import HubSpot
from shared.settings import REQUIRED, Settings
from shared.text_format import format_ago, make_printable
from shared.token_cipher import TokenCipher
from shared.workflows.key_rotation import audit_tokens, count_tokens

#: Seconds by which this host's clock may differ from PostgreSQL's.
CLOCK_TOLERANCE = 2.0
#: What HubSpot is asked about, to see whether it answers us. It is nobody's.
NO_TOKEN = "tokenkeeper-doctor"  # noqa: S105  no password


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Looks at everything, each time the next finding is asked for. A bad setting fails only what needs it."""
    yield from in_turn(("settings", partial(_settings, environ), False))
    patient = _Database(environ)
    try:
        yield from in_turn(
            ("database", patient.reachable, True),
            ("server log", patient.server_log, False),
            ("clock", patient.clock, False),
            ("schema", patient.schema, True),
            ("rows", patient.rows, False),
            ("beat", patient.beat, False),
            ("refreshes", patient.refreshes, False),
            ("brake", patient.brake, False),
        )
    finally:
        patient.close()
    yield from in_turn(
        ("redis", partial(_redis, environ), False),
        ("redirect URI", partial(_redirect_uri, environ), False),
        ("API version", partial(_api_version, environ), False),
        ("HubSpot", partial(_hubspot, environ), False),
    )


def _part(environ: Mapping[str, str], *names: str) -> Settings:
    """These settings alone: a bad one elsewhere is no matter here. Raises SettingsError."""
    known = {name: value for name, value in environ.items() if name.removesuffix("_FILE") in names}
    return Settings.from_env(known, needs=[name for name in names if name in REQUIRED])


def _settings(environ: Mapping[str, str]) -> str:
    Settings.from_env(environ)
    return "all there and well-formed"


class _Database:
    """The checks that ask PostgreSQL."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(_part(self._environ, "DATABASE_URL").database_url, pool_size=1)

    @cached_property
    def _roster(self) -> ConnectionReports:
        return ConnectionReports(self._engine)

    @cached_property
    def _overview(self) -> Overview:
        return self._roster.read_overview()

    def close(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def reachable(self) -> str:
        return f"PostgreSQL {read_server_info(self._engine).version} answers"

    def schema(self) -> str:
        check_schema(self._engine)
        return "is this code's"

    def server_log(self) -> Said:
        server = read_server_info(self._engine)
        setting = server.log_min_error_statement
        if setting == "panic":
            more = "" if server.log_error_verbosity == "terse" else "; with log_error_verbosity = terse, no rows either"
            return f"holds no statements{more}"
        return Level.WARN, (
            f"log_min_error_statement is {setting}: PostgreSQL's log can come to hold access tokens; "
            "have an administrator run: ALTER SYSTEM SET log_min_error_statement = panic; SELECT pg_reload_conf();"
        )

    def clock(self) -> str:
        before = _here()
        theirs = self._roster.read_time()
        ahead = (before + (_here() - before) / 2 - theirs).total_seconds()
        if abs(ahead) > CLOCK_TOLERANCE:
            how = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'}"
            raise Fails(f"this host is {how} PostgreSQL: have both set their clocks by NTP")
        return f"this host and PostgreSQL differ by {abs(ahead):.1f} s"

    def rows(self) -> Said:
        cipher = TokenCipher(_part(self._environ, "TOKEN_KEYS").token_keys)
        key_check = KeyCheckStore(self._engine)
        if not key_check.can_read_refresh_tokens():
            return _key_check(cipher, key_check.read_check_value())
        with watched(count_tokens(self._roster)) as watch:
            proof = audit_tokens(self._roster, cipher, watch)
        if proof.undecryptable_hubs:
            raise Fails(
                f"{told(proof.undecryptable_hubs)} of {proof.rows:,} rows: does not open with TOKEN_KEYS: "
                "put the key back that sealed it"
            )
        if proof.on_older_key:
            return (
                Level.WARN,
                f"{proof.on_older_key:,} of {proof.rows:,} need an older key: run: tokenkeeper keys rotate",
            )
        return f"all {proof.rows:,} open with the newest key"

    def beat(self) -> str:
        swept_at, now = self._overview.swept_at, self._overview.now
        if swept_at is None:
            raise Fails("there was no sweep yet: start beat and worker")
        if is_sweep_overdue(swept_at, now, _part(self._environ, "SWEEP_SECONDS").sweep_seconds):
            raise Fails(f"the last sweep was {format_ago(swept_at, now)}: is beat running, and a worker, and Redis?")
        return f"the last sweep was {format_ago(swept_at, now)}"

    def refreshes(self) -> Said:
        provider = self._overview.provider
        if provider.condition is not Condition.OK:
            since = f" since {format_ago(provider.since, self._overview.now)}" if provider.since else ""
            return (
                Level.WARN,
                f"HubSpot is {provider.condition}{since}: {make_printable(provider.reason or 'no reason given')}",
            )
        return f"{self._overview.due:,} due, {self._overview.failing:,} failing"

    def brake(self) -> Said:
        if (on_since := self._overview.brake_since) is None:
            return "off"
        since, held = format_ago(on_since, self._overview.now), self._overview.held
        return Level.WARN, f"on since {since}, {held:,} connections held: see: tokenkeeper revocations"


def _key_check(cipher: TokenCipher, check_schema: str | None) -> Said:
    """With web's login, which reads no refresh token."""
    if check_schema is None:
        return (
            Level.WARN,
            "this login may not read them, and no worker has started yet to keep a value to check keys by",
        )
    if not cipher.can_decrypt(check_schema):
        raise Fails("TOKEN_KEYS does not open what the worker sealed: give web and worker the same keys")
    return "this login may not read them; TOKEN_KEYS opens what the worker sealed"


def _redis(environ: Mapping[str, str]) -> str:
    url, options = build_broker_config(
        _part(environ, "REDIS_URL").redis_url, {"socket_connect_timeout": 2, "socket_timeout": 2}
    )
    app = Celery("tokenkeeper-doctor", broker=url, set_as_current=False)
    app.conf.broker_transport_options = options
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.2, timeout=5)
    except (OperationalError, RedisError, OSError) as error:
        why = type(error.__cause__ or error).__name__
        raise Fails(f"the broker at REDIS_URL does not answer ({why}): start Redis, or mend REDIS_URL") from None
    return "answers"


def _redirect_uri(environ: Mapping[str, str]) -> str:
    uri = _part(environ, "HUBSPOT_REDIRECT_URI").hubspot_redirect_uri
    return f"{uri} keeps HubSpot's rules; it must stand in the app's settings letter by letter"


def _api_version(environ: Mapping[str, str]) -> str:
    return _part(environ, "HUBSPOT_API_VERSION").hubspot_api_version


def _hubspot(environ: Mapping[str, str]) -> Said:
    ours = _part(
        environ,
        "HUBSPOT_CLIENT_ID",
        "HUBSPOT_CLIENT_SECRET",
        "HUBSPOT_API_URL",
        "HUBSPOT_API_VERSION",
        "HTTP_TIMEOUT_SECONDS",
        "LEASE_SECONDS",
    )
    hubspot = HubSpot.from_settings(ours, connections=1)
    try:
        hubspot.introspect(NO_TOKEN, "refresh_token")
    except InvalidGrant:
        pass  # it looked at the token: it knows our app
    except InvalidClient as error:
        raise Fails(f"refuses our app, {error}: check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET") from None
    except UnknownRefusal as error:
        what = f"refuses our question, {error}: are HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET this app's?"
        return Level.WARN, what
    except ProviderError as error:
        raise Fails(f"does not answer, {error}: check the way to HUBSPOT_API_URL, and status.hubspot.com") from None
    finally:
        hubspot.close()
    return "answers, and knows our app"


def _here() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  this host's clock is what is looked at
