"""What `tokenkeeper doctor` checks: one finding each; a failure says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial

from sqlalchemy import Engine

from cli.doctor.clock_difference import ClockReading, measure_clock_difference
from cli.doctor.event_findings import describe_delivery, describe_scopes
from cli.doctor.findings import Check, CheckFailed, Finding, Level, Result, load, read_host_clock, run_checks
from cli.doctor.journal_finding import describe_journal
from cli.doctor.outside_checks import check_redis, list_app_checks, list_app_names
from cli.output import format_hubs, track_pages
from shared.db.core.engine import make_engine
from shared.db.lifecycle.key_check import KeyCheckStore
from shared.db.lifecycle.key_rotation import KeyRotationStore
from shared.db.reports.connections import ConnectionReports
from shared.db.reports.history_lines import HistoryReader
from shared.db.reports.journals import read_journals
from shared.db.reports.oldest_snapshot import OldestSnapshot, read_oldest_snapshot
from shared.db.reports.overview import Overview
from shared.db.reports.scopes import ScopeReports
from shared.db.schema.migrate import check_schema
from shared.db.schema.server_info import read_other_readers, read_server_info
from shared.domain.alerts import MAX_QUEUE_USAGE_SHARE, MAX_SNAPSHOT_AGE, describe_holder
from shared.domain.provider import Condition, Provider
from shared.domain.sweep_liveness import is_beat_missing, is_sweep_overdue
from shared.foreign_environment import find_unused_proxies
from shared.settings import Settings, SettingsError
from shared.settings.apps_file import FILE_VARIABLE
from shared.text_format import format_ago, format_duration, make_printable
from shared.token_cipher import TokenCipher
from shared.workflows.key_rotation import audit_tokens, count_tokens

#: By so much this host's clock may differ from PostgreSQL's.
CLOCK_TOLERANCE_SECONDS = 2.0
#: So many times the clocks are read: a machine that stands still for some seconds makes a single answer say nothing.
CLOCK_READINGS = 3


def check_all(environ: Mapping[str, str], ignored_variables: Sequence[str]) -> Iterator[Finding]:
    """Each check runs when its finding is asked for. A bad setting fails only the checks that need it."""
    yield from run_checks(
        Check("settings", partial(_check_settings, environ)),
        Check("environment", partial(_check_environment, environ, ignored_variables)),
        Check("connect links", partial(_check_connect_links, environ)),
    )
    database = _DatabaseChecks(environ)
    try:
        yield from run_checks(
            Check("database", database.check_reachable, is_prerequisite=True),
            Check("server log", database.check_server_log),
            Check("clock", database.check_clock),
            Check("schema", database.check_schema, is_prerequisite=True),
            Check("readers", database.check_readers),
            Check("rows", database.check_rows),
            Check("settings of apps", database.check_settings_of_apps),
            Check("beat", database.check_beat),
            Check("refreshes", database.check_refreshes),
            Check("brake", database.check_brake),
            Check("snapshots", database.check_snapshots),
            *database.list_journal_checks(),
            Check("granted scopes", database.check_granted_scopes),
            Check("events", database.check_events),
        )
    finally:
        database.close()
    yield from run_checks(
        Check("redis", partial(check_redis, environ)),
        *list_app_checks(environ),
    )


def _check_settings(environ: Mapping[str, str]) -> str:
    Settings.from_env(environ)
    return "complete and well-formed"


def _check_environment(environ: Mapping[str, str], ignored_variables: Sequence[str]) -> Result:
    """Variables of other programs, which a reader of the environment may take for settings."""
    notes = []
    if ignored_variables:
        notes.append(f"{', '.join(ignored_variables)} of other programs: ignored")
    has_proxy = environ.get("HUBSPOT_PROXY") or environ.get("HUBSPOT_PROXY_FILE")
    if (proxies := find_unused_proxies(environ)) and not has_proxy:
        notes.append(f"{proxies[0]} is not used: where HubSpot is reached by a proxy alone, set HUBSPOT_PROXY")
    return (Level.WARN, "; ".join(notes)) if notes else "sets nothing of other programs"


def _check_connect_links(environ: Mapping[str, str]) -> str:
    """Only web has the keys, and does not start where links are required and it has none."""
    settings = load(environ, "CONNECT_LINK_KEYS", "CONNECT_LINK_REQUIRED", "RETURN_TO_ORIGINS")
    count, origins = len(settings.connect_link_keys), ", ".join(settings.return_to_origins)
    start = "are required" if settings.connect_link_required else "are optional"
    if not count:
        return f"{start}; CONNECT_LINK_KEYS is not set here, and only web needs it: without it there are none"
    back = f"lead back to {origins}" if origins else "lead nowhere back: RETURN_TO_ORIGINS is not set"
    return f"{start}, are accepted by {count} key{'' if count == 1 else 's'}, and {back}"


class _DatabaseChecks:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @cached_property
    def _engine(self) -> Engine:
        return make_engine(load(self._environ, "DATABASE_URL").database_url, pool_size=1)

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
        ahead = measure_clock_difference([self._read_clocks() for _ in range(CLOCK_READINGS)])
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS:
            difference = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'}"
            raise CheckFailed(f"this host is {difference} PostgreSQL: synchronise both with NTP")
        return f"this host and PostgreSQL differ by {abs(ahead):.1f} s"

    def _read_clocks(self) -> ClockReading:
        return ClockReading(read_host_clock(), self._reports.read_time(), read_host_clock())

    def check_schema(self) -> str:
        check_schema(self._engine)
        return "matches this version"

    def check_readers(self) -> Result:
        others = read_other_readers(self._engine)
        if not others:
            return "the members of hubspot_reader can read this installation alone"
        return Level.WARN, (
            f"members of hubspot_reader can read the tokens of this database and of {', '.join(others)}: have an "
            "administrator take CONNECT from PUBLIC (docs/operations.md, Database roles)"
        )

    def check_rows(self) -> Result:
        cipher = TokenCipher(load(self._environ, "TOKEN_KEYS").token_keys)
        key_check = KeyCheckStore(self._engine)
        if not key_check.can_read_refresh_tokens():
            return _check_keys_by_check_value(cipher, key_check.read_check_value())
        with track_pages(count_tokens(self._reports)) as track:
            audit = audit_tokens(KeyRotationStore(self._engine), cipher, track)
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
        sweep_seconds = load(self._environ, "SWEEP_SECONDS").sweep_seconds
        if is_sweep_overdue(swept_at, now, sweep_seconds):
            raise CheckFailed(f"{last}: is a worker running, and does it reach PostgreSQL?")
        if is_beat_missing(self._overview.swept_without_beat_since, now, sweep_seconds):
            raise CheckFailed(f"{last}, but no message of beat reaches a worker: is beat running, and Redis?")
        return last

    def check_settings_of_apps(self) -> Result:
        """Connections of an app that the settings no longer describe are kept, and not refreshed."""
        states = self._overview.find_without_settings(list_app_names(self._environ))
        if not states:
            return "describe the app of every connection"
        counts = ", ".join(f"{state.live:,} of {state.app}" for state in states)
        return Level.WARN, (
            f"do not describe the app of some connections ({counts}): they are kept, and not refreshed; put its table "
            f"back into {FILE_VARIABLE}, or end them: tokenkeeper disconnect HUB --app {states[0].app}"
        )

    def check_refreshes(self) -> Result:
        overview = self._overview.select(list_app_names(self._environ))
        problems = [state for state in overview.apps if state.provider.condition is not Condition.OK]
        if not problems:
            return f"{overview.due:,} due, {overview.failing:,} failing"
        return Level.WARN, "; ".join(
            f"{_describe_provider(state.provider, overview.now)}{f' ({state.app})' if len(overview.apps) > 1 else ''}"
            for state in problems
        )

    def check_snapshots(self) -> Result:
        return describe_snapshot(read_oldest_snapshot(self._engine))

    def list_journal_checks(self) -> Iterator[Check]:
        """One for each app; none where the file of the apps cannot be read, of which another check complains."""
        names: list[str] = []
        with suppress(SettingsError):
            names = list_app_names(self._environ)
        for name in names:
            suffix = f" of {name}" if len(names) > 1 else ""
            yield Check(f"journal{suffix}", partial(self._check_journal, name))

    def _check_journal(self, app: str) -> Result:
        journals = {journal.app: journal for journal in read_journals(self._engine)}
        return describe_journal(journals.get(app), load(self._environ, "JOURNAL_SECONDS").journal_seconds)

    def check_granted_scopes(self) -> Result:
        return describe_scopes(ScopeReports(self._engine).read_counts())

    def check_events(self) -> Result:
        return describe_delivery(HistoryReader(self._engine).read_delivery())

    def check_brake(self) -> Result:
        if (on_since := self._overview.brake_since) is None:
            return "off"
        since, held = format_ago(on_since, self._overview.now), self._overview.held
        return Level.WARN, f"on since {since}, {held:,} connections held: see: tokenkeeper revocations"


def describe_snapshot(oldest: OldestSnapshot) -> Result:
    age, holder = format_duration(oldest.age_seconds), make_printable(describe_holder(oldest.holder))
    if oldest.queue_usage > MAX_QUEUE_USAGE_SHARE:
        return Level.WARN, (
            f"PostgreSQL's queue of notifications is {oldest.queue_usage:.0%} full: end the transaction of the "
            f"session that listens; the oldest one has been open for {age}: {holder}"
        )
    if oldest.age_seconds > MAX_SNAPSHOT_AGE.total_seconds():
        return Level.WARN, f"{holder} has kept one open for {age}: tables grow until it is closed"
    return f"none is older than {format_duration(MAX_SNAPSHOT_AGE.total_seconds())}"


def _describe_provider(provider: Provider, now: datetime) -> str:
    since = f" since {format_ago(provider.since, now)}" if provider.since else ""
    return f"HubSpot is {provider.condition}{since}: {make_printable(provider.reason or 'no reason given')}"


def _check_keys_by_check_value(cipher: TokenCipher, check_value: str | None) -> Result:
    """For web's login, which may not read refresh tokens."""
    if check_value is None:
        return Level.WARN, "this login may not read them, and no worker has stored a value yet to check the keys by"
    if not cipher.can_decrypt(check_value):
        raise CheckFailed("TOKEN_KEYS does not decrypt what the worker encrypted: give web and worker the same keys")
    return "this login may not read them; TOKEN_KEYS decrypts what the worker encrypted"
