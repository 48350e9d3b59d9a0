"""The keys and passwords of this installation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shared.settings import parsers
from shared.settings.declaration import WEB_AND_WORKER, Process, Source, setting


@dataclass(frozen=True)
class KeySettings:
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
