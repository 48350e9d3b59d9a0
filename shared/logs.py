"""Logging for people (text) or machines (JSON), with secrets redacted.

Our own log lines contain no secret. Redaction is the second barrier: it also covers what libraries log.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any

import structlog

from shared import tracing

log = structlog.get_logger(__name__)

Event = MutableMapping[str, Any]

REDACTED = "[secret]"
FERNET_CIPHERTEXT = r"gAAAA[\w-]{20,}=*"
CODE_IN_QUERY = r"(?<=[?&\s\"'](?:code=))[^\s&\"']+"
BEARER_TOKEN = r"(?i:(?<=bearer ))[\w.~+/=-]+"  # noqa: S105  a pattern
USER_AND_PASSWORD_IN_URL = r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # noqa: S105  a pattern
HUBSPOT_CODE_OR_REFRESH_TOKEN = r"\b(?:na|eu|ap)\d-[0-9a-f]{4}[\w-]{12,}\b"  # noqa: S105  a pattern
_SECRET_SHAPES = re.compile(
    f"{FERNET_CIPHERTEXT}|{CODE_IN_QUERY}|{BEARER_TOKEN}|{USER_AND_PASSWORD_IN_URL}|{HUBSPOT_CODE_OR_REFRESH_TOKEN}"
)
#: `password: x`, `"state": "x"`, `code=x`.
_NAMED_SECRET = re.compile(
    r"(?P<name>(?:access_token|refresh_token|client_secret|code|password|state|ciphertext)[\"']?\s*[=:]\s*[\"']?)"
    r"(?P<value>[^\s&,\"'}]+)"
)
#: A shorter one would redact innocent words. Settings require longer ones.
MIN_SECRET_LENGTH = 8
#: These fields may have several lines.
_MULTILINE_FIELDS = ("exception", "stack")
_secrets: tuple[str, ...] = ()


def configure(log_format: str, log_level: str, secrets: Iterable[str] = (), *, names_app: bool = False) -> None:
    """Send our own and the libraries' log lines to stderr in one format, with `secrets` redacted.

    `names_app`: there are several HubSpot apps, so lines say which one they are about.
    """
    global _secrets  # noqa: PLW0603  one process, one log
    _secrets = tuple(secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH)
    library_processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace_id,
    ]
    own_processors = [each for each in library_processors if not isinstance(each, structlog.stdlib.ExtraAdder)]
    if not names_app:
        own_processors.append(_leave_out_app)
    structlog.configure(
        processors=[*own_processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.raiseExceptions = False  # logging would print, unredacted, what it cannot format
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=library_processors, processors=_make_final_processors(log_format)
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log_level.upper())
    _limit_libraries(root.level)


def log_ignored_variables(names: Sequence[str]) -> None:
    """Those that shared/foreign_environment.py has removed."""
    if names:
        log.warning("ignored variables of other programs: only our own settings count", names=", ".join(names))


def quieten_logger(name: str, level: int = logging.WARNING) -> None:
    """Let this logger log nothing below `level`, unless the level of all is debug."""
    if logging.getLogger().level > logging.DEBUG:
        logging.getLogger(name).setLevel(level)


def redact(text: str) -> str:
    """The text with each secret of the settings, and what looks like a secret, replaced."""
    for secret in _secrets:
        text = text.replace(secret, REDACTED)
    return _NAMED_SECRET.sub(rf"\g<name>{REDACTED}", _SECRET_SHAPES.sub(REDACTED, text))


def redact_all(value: Any) -> Any:
    """The same for the texts in a value that becomes JSON."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {str(name): redact_all(item) for name, item in value.items()}
    return [redact_all(item) for item in value] if isinstance(value, list) else value


class RedactingFilter(logging.Filter):
    """For another library's handler: redacts the message and the traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        record.msg, record.args = _escape(redact(record.getMessage())), ()
        return True


def _make_final_processors(log_format: str) -> list[Any]:
    """What makes a line of text of each event, our own and the libraries'."""
    processors: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _redact_fields,
    ]
    if log_format == "json":
        return [*processors, structlog.processors.JSONRenderer()]
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
    return [*processors, _escape_fields, console]


def _limit_libraries(level: int) -> None:
    # At debug these log what they send: form bodies with the client secret and refresh tokens.
    for name in ("urllib3", "requests", "http.client", "amqp", "kombu", "redis"):
        logging.getLogger(name).setLevel(max(logging.INFO, level))
    # At warning this one logs the raw headers of a malformed response.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


def _leave_out_app(_logger: object, _method: str, event: Event) -> Event:
    event.pop("app", None)
    return event


def _add_trace_id(_logger: object, _method: str, event: Event) -> Event:
    if trace_id := tracing.get_trace_id():
        event["trace_id"] = trace_id
    return event


def _redact_fields(_logger: object, _method: str, event: Event) -> Event:
    return {
        name: value if value is None or isinstance(value, (int, float, bool)) else redact(str(value))
        for name, value in event.items()
    }


def _escape_fields(_logger: object, _method: str, event: Event) -> Event:
    """One line but for a traceback: text from outside must not begin another line, nor move a cursor."""
    return {name: value if name in _MULTILINE_FIELDS else _escape(value) for name, value in event.items()}


def _escape(value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in value)
