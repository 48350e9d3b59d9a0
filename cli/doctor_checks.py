"""What `tokenkeeper doctor` checks: one finding each; a failure says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property, partial

from sqlalchemy import Engine

from cli.output import format_hubs, track_pages
from shared.broker_check import BrokerUnavailable, BrokerUnusable, check_broker
from shared.db.core.engine import make_engine
from shared.db.core.errors import SchemaError, StoreError
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.reports.connections import ConnectionReports, Overview
from shared.db.reports.oldest_snapshot import read_oldest_snapshot
from shared.db.schema.migrate import check_schema
from shared.db.schema.server_info import read_server_info
from shared.domain.alerts import MAX_QUEUE_USAGE, MAX_SNAPSHOT_AGE, describe_holder
from shared.domain.errors import InvalidClient, InvalidGrant, ProviderError, UnknownRefusal
from shared.domain.provider import Condition
from shared.domain.sweep_liveness import is_beat_missing, is_sweep_overdue
from shared.hubspot.client import HubSpot
from shared.settings import REQUIRED, Settings, SettingsError
from shared.text_format import format_ago, format_duration, make_printable
from shared.token_cipher import TokenCipher
from shared.workflows.key_rotation import audit_tokens, count_tokens

#: By so much this host's clock may differ from PostgreSQL's.
CLOCK_TOLERANCE_SECONDS = 2.0
#: HubSpot is asked about this token, to see whether it answers and accepts the app. It belongs to no account.
PROBE_TOKEN = "tokenkeeper-doctor"  # noqa: S105  no password


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    #: Not checked, because something that it depends on fails.
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    about: str
    what: str


class CheckFailed(Exception):
    """What is wrong, and what to do."""


Result = str | tuple[Level, str]  #: without a level it is `ok`


@dataclass(frozen=True, slots=True)
class Check:
    about: str
    run: Callable[[], Result]  #: raises CheckFailed, SettingsError, SchemaError or StoreError
    is_prerequisite: bool = False  #: where it fails, the checks after it are skipped


def check_all(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Each check runs when its finding is asked for. A bad setting fails only the checks that need it."""
    yield from _run_checks(Check("settings", partial(_check_settings, environ)))
    database = _DatabaseChecks(environ)
    try:
        yield from _run_checks(
            Check("database", database.check_reachable, is_prerequisite=True),
            Check("server log", database.check_server_log),
            Check("clock", database.check_clock),
            Check("schema", database.check_schema, is_prerequisite=True),
            Check("rows", database.check_rows),
            Check("beat", database.check_beat),
            Check("refreshes", database.check_refreshes),
            Check("brake", database.check_brake),
            Check("snapshots", database.check_snapshots),
        )
    finally:
        database.close()
    yield from _run_checks(
        Check("redis", partial(_check_redis, environ)),
        Check("redirect URI", partial(_check_redirect_uri, environ)),
        Check("API version", partial(_check_api_version, environ)),
        Check("HubSpot", partial(_check_hubspot, environ)),
    )


def _run_checks(*checks: Check) -> Iterator[Finding]:
    failed = ""
    for check in checks:
        if failed:
            yield Finding(Level.SKIP, check.about, f"not checked: first correct: {failed}")
            continue
        try:
            result = check.run()
        except (CheckFailed, SettingsError, SchemaError, StoreError) as error:
            if check.is_prerequisite:
                failed = check.about
            yield Finding(Level.FAIL, check.about, str(error))
        else:
            level, what = (Level.OK, result) if isinstance(result, str) else result
            yield Finding(level, check.about, what)


def _load(environ: Mapping[str, str], *names: str) -> Settings:
    """These settings alone, so that a bad one elsewhere does not matter. Raises SettingsError."""
    known = {name: value for name, value in environ.items() if name.removesuffix("_FILE") in names}
    return Settings.from_env(known, needs=[name for name in names if name in REQUIRED])


def _check_settings(environ: Mapping[str, str]) -> str:
    Settings.from_env(environ)
    return "complete and well-formed"


class _DatabaseChecks:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(_load(self._environ, "DATABASE_URL").database_url, pool_size=1)

    @cached_property
    def _reports(self) -> ConnectionReports:
        return ConnectionReports(self._engine)

    @cached_property
    def _overview(self) -> Overview:
        return self._reports.read_overview()

    def close(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.dispose()

    def check_reachable(self) -> str:
        return f"PostgreSQL {read_server_info(self._engine).version} answers"

    def check_server_log(self) -> Result:
        server = read_server_info(self._engine)
        level = server.log_min_error_statement
        if level == "panic":
            advice = "; set log_error_verbosity = terse to keep rows out of it too"
            return f"contains no statements{'' if server.log_error_verbosity == 'terse' else advice}"
        return Level.WARN, (
            f"log_min_error_statement is {level}: PostgreSQL's log can come to contain access tokens; "
            "have an administrator run: ALTER SYSTEM SET log_min_error_statement = panic; SELECT pg_reload_conf();"
        )

    def check_clock(self) -> str:
        before = _read_host_clock()
        server_time = self._reports.read_time()
        ahead = (before + (_read_host_clock() - before) / 2 - server_time).total_seconds()
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
            difference = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'}"
            raise CheckFailed(f"this host is {difference} PostgreSQL: synchronise both with NTP")
        return f"this host and PostgreSQL differ by {abs(ahead):.1f} s"

    def check_schema(self) -> str:
        check_schema(self._engine)
        return "matches this version"

    def check_rows(self) -> Result:
        cipher = TokenCipher(_load(self._environ, "TOKEN_KEYS").token_keys)
        key_check = KeyCheckStore(self._engine)
        if not key_check.can_read_refresh_tokens():
            return _check_keys_by_check_value(cipher, key_check.read_check_value())
        with track_pages(count_tokens(self._reports)) as track:
            audit = audit_tokens(self._reports, cipher, track)
        if audit.undecryptable_hubs:
            raise CheckFailed(
                f"{format_hubs(audit.undecryptable_hubs)} of {audit.rows:,} rows: TOKEN_KEYS does not decrypt it: "
                "put back the key that encrypted it"
            )
        if audit.on_older_key:
            what = f"{audit.on_older_key:,} of {audit.rows:,} need an older key: run: tokenkeeper keys rotate"
            return Level.WARN, what
        return f"the newest key decrypts all {audit.rows:,}"

    def check_beat(self) -> str:
        swept_at, now = self._overview.swept_at, self._overview.now
        if swept_at is None:
            raise CheckFailed("there was no sweep yet: start beat and worker")
        last = f"the last sweep was {format_ago(swept_at, now)}"
        sweep_seconds = _load(self._environ, "SWEEP_SECONDS").sweep_seconds
        if is_sweep_overdue(swept_at, now, sweep_seconds):
            raise CheckFailed(f"{last}: is a worker running, and does it reach PostgreSQL?")
        if is_beat_missing(self._overview.swept_without_beat_since, now, sweep_seconds):
            raise CheckFailed(f"{last}, but no message of beat reaches a worker: is beat running, and Redis?")
        return last

    def check_refreshes(self) -> Result:
        provider = self._overview.provider
        if provider.condition is Condition.OK:
            return f"{self._overview.due:,} due, {self._overview.failing:,} failing"
        since = f" since {format_ago(provider.since, self._overview.now)}" if provider.since else ""
        reason = make_printable(provider.reason or "no reason given")
        return Level.WARN, f"HubSpot is {provider.condition}{since}: {reason}"

    def check_snapshots(self) -> Result:
        oldest = read_oldest_snapshot(self._engine)
        age, holder = format_duration(oldest.age_seconds), make_printable(describe_holder(oldest.holder))
        if oldest.queue_usage > MAX_QUEUE_USAGE:
            return Level.WARN, (
                f"PostgreSQL's queue of notifications is {oldest.queue_usage:.0%} full: end the transaction of the "
                f"session that listens; the oldest one has been open for {age}: {holder}"
            )
        if oldest.age_seconds > MAX_SNAPSHOT_AGE.total_seconds():
            return Level.WARN, f"{holder} has kept one open for {age}: tables grow until it is closed"
        return f"none is older than {format_duration(MAX_SNAPSHOT_AGE.total_seconds())}"

    def check_brake(self) -> Result:
        if (on_since := self._overview.brake_since) is None:
            return "off"
        since, held = format_ago(on_since, self._overview.now), self._overview.held
        return Level.WARN, f"on since {since}, {held:,} connections held: see: tokenkeeper revocations"


def _check_keys_by_check_value(cipher: TokenCipher, check_value: str | None) -> Result:
    """For web's login, which may not read refresh tokens."""
    if check_value is None:
        return Level.WARN, "this login may not read them, and no worker has stored a value yet to check the keys by"
    if not cipher.can_decrypt(check_value):
        raise CheckFailed("TOKEN_KEYS does not decrypt what the worker encrypted: give web and worker the same keys")
    return "this login may not read them; TOKEN_KEYS decrypts what the worker encrypted"


def _check_redis(environ: Mapping[str, str]) -> str:
    try:
        check_broker(_load(environ, "REDIS_URL").redis_url)
    except BrokerUnusable as error:
        raise CheckFailed(str(error)) from None
    except BrokerUnavailable as error:
        raise CheckFailed(
            f"the broker at REDIS_URL does not answer ({error}): start Redis, or correct REDIS_URL"
        ) from None
    return "answers, and lets our user run what Celery needs"


def _check_redirect_uri(environ: Mapping[str, str]) -> str:
    uri = _load(environ, "HUBSPOT_REDIRECT_URI").hubspot_redirect_uri
    return f"{uri} follows HubSpot's rules; register exactly this URL in the app's settings at HubSpot"


def _check_api_version(environ: Mapping[str, str]) -> str:
    return _load(environ, "HUBSPOT_API_VERSION").hubspot_api_version


def _check_hubspot(environ: Mapping[str, str]) -> Result:
    app = ("HUBSPOT_CLIENT_ID", "HUBSPOT_CLIENT_SECRET", "HUBSPOT_API_URL", "HUBSPOT_API_VERSION")
    hubspot = HubSpot.from_settings(
        _load(environ, *app, "HTTP_TIMEOUT_SECONDS", "LEASE_SECONDS"), max_idle_connections=1
    )
    try:
        hubspot.introspect(PROBE_TOKEN, "refresh_token")
    except InvalidGrant:
        pass  # it looked at the token, so it has accepted the app
    except InvalidClient as error:
        raise CheckFailed(f"refuses our app, {error}: check HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET") from None
    except UnknownRefusal as error:
        what = f"refuses the request, {error}: are HUBSPOT_CLIENT_ID and HUBSPOT_CLIENT_SECRET those of one app?"
        return Level.WARN, what
    except ProviderError as error:
        raise CheckFailed(
            f"does not answer ({_describe(error)}): check the network to HUBSPOT_API_URL, and status.hubspot.com"
        ) from None
    finally:
        hubspot.close()
    return "answers; client id and secret accepted"


def _describe(error: ProviderError) -> str:
    return "connection failed" if error.code == "connection" else str(error)


def _read_host_clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  this host's clock is what is checked
