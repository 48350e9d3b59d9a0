"""Import this first in a process that lives on: the libraries below then load less, for all that import them later.

structlog loads rich for the tracebacks of a terminal, redis-py OpenTelemetry's SDK for metrics of its own, and both
asyncio: 10 MB in each group of processes, installed for the command `tokenkeeper` and for our own traces
(docs/adr/0040). Their asynchronous functions do not work in such a process, and nothing here calls them.
"""

from shared.optional_imports import hide_optional, import_without

with hide_optional("rich", "opentelemetry"):
    import_without(("asyncio", "redis.asyncio"), "redis", "structlog")
