"""Logging for people (text) or machines (json); secrets cannot pass.

What we write ourselves never holds one. This is the net below: it also catches what libraries say.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog

from shared import tracing

Event = MutableMapping[str, Any]

_SHAPES = re.compile(
    r"gAAAA[\w-]{20,}=*"  # whatever a Fernet sealed
    r"|(?<=[?&\s\"'](?:code=))[^\s&\"']+"
    r"|(?i:(?<=bearer ))[\w.~+/=-]+"
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # the user and password of a URL
    r"|\b(?:na|eu|ap)\d-[0-9a-f]{4}[\w-]{12,}\b"  # HubSpot's codes and refresh tokens
)
_NAMED = re.compile(
    r"(?P<name>(?:access_token|refresh_token|client_secret|code|password|state|ciphertext)[\"']?\s*[=:]\s*[\"']?)"
    r"(?P<value>[^\s&,\"'}]+)"
)
#: Fields that are meant to have several lines.
_FRAMES = ("exception", "stack")
_secrets: tuple[str, ...] = ()
#: A shorter one would blot out innocent words; settings ask for more than that.
SHORTEST_SECRET = 8


def configure(log_format: str, log_level: str, secrets: Iterable[str] = ()) -> None:
    """Send everything, ours and the libraries', to stderr in one format, with `secrets` blotted out."""
    global _secrets  # noqa: PLW0603  one process, one log
    _secrets = tuple(secret for secret in secrets if len(secret) >= SHORTEST_SECRET)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _trace,
    ]
    structlog.configure(
        processors=[*shared[:3], *shared[4:], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.raiseExceptions = False  # what cannot be formatted would be printed raw
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_ending(log_format)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log_level.upper())
    # At debug these print what they send: our form bodies hold the client secret and refresh tokens.
    for name in ("urllib3", "requests", "http.client", "amqp", "kombu", "redis"):
        logging.getLogger(name).setLevel(max(logging.INFO, root.level))
    # Of a malformed reply this one prints the raw headers, at warning.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


def quieten_logger(name: str) -> None:
    """Let this logger speak of trouble only, unless everything is wanted."""
    if logging.getLogger().level > logging.DEBUG:
        logging.getLogger(name).setLevel(logging.WARNING)


def redact(text: str) -> str:
    """The text with everything that is, or looks like, a secret blotted out."""
    for secret in _secrets:
        text = text.replace(secret, "[secret]")
    return _NAMED.sub(r"\g<name>[secret]", _SHAPES.sub("[secret]", text))


class RedactingFilter(logging.Filter):
    """For a handler that is not ours: the line and its traceback with all that is secret blotted out."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        record.msg, record.args = _visible(redact(record.getMessage())), ()
        return True


def _ending(log_format: str) -> list[Any]:
    frames = structlog.processors.format_exc_info
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if log_format == "json":
        return [meta, frames, _blot, structlog.processors.JSONRenderer()]
    return [meta, frames, _blot, _line, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)]


def _trace(_logger: object, _method: str, event: Event) -> Event:
    """Leads from a line to the trace in which it was written."""
    if trace_id := tracing.get_trace_id():
        event["trace_id"] = trace_id
    return event


def _blot(_logger: object, _method: str, event: Event) -> Event:
    return {key: _blotted(value) for key, value in event.items()}


def _line(_logger: object, _method: str, event: Event) -> Event:
    """All but a traceback on one line: what others wrote must not begin another, nor move a cursor."""
    return {key: _visible(value) if key not in _FRAMES else value for key, value in event.items()}


def _visible(value: Any) -> Any:
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in value)


def _blotted(value: object) -> object:
    if value is None or isinstance(value, (int, float, bool)):
        return value
    return redact(value if isinstance(value, str) else str(value))
