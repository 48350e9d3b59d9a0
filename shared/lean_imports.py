"""Import this first in a process that lives on: the libraries below then load less, for all that import them later.

structlog loads rich for the tracebacks of a terminal, and redis-py OpenTelemetry's SDK for metrics of its own: 7 MB in
each group of processes, installed for the command `tokenkeeper` and for our own traces (docs/adr/0040).
"""

from shared.optional_imports import hide_optional

with hide_optional("rich", "opentelemetry"):
    import redis  # noqa: F401
    import structlog  # noqa: F401
