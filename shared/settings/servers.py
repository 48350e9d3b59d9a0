"""The servers that are used, the proxies in front of web, and the log."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared.settings import parsers
from shared.settings.declaration import WEB_AND_WORKER, Process, Source, setting

LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class ServerSettings:
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
