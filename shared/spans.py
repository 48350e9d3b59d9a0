"""What a span is, for whoever makes one (`shared.tracing`) and for what sends it (`shared.otel`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import Enum
from typing import Protocol

Value = str | int | float | bool | None  #: None is left out


class Kind(Enum):
    """Which side of a call a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    def set(self, **attributes: Value) -> None:
        """Never a secret, and nothing that others wrote but what is fit for a log."""


class Tracer(Protocol):
    """`shared.otel.Tracer`."""

    def span(
        self, name: str, kind: Kind, parent: Mapping[str, str] | None, attributes: Mapping[str, Value]
    ) -> AbstractContextManager[Span]: ...
    def note(self, attributes: Mapping[str, Value]) -> None: ...
    def headers(self) -> dict[str, str]: ...
    def trace_id(self) -> str | None: ...
    def close(self) -> None: ...
