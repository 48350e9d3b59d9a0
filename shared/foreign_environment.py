"""Variables by which the libraries of this project would change what it does: only shared/settings/ is meant to.

Celery takes its broker from CELERY_BROKER_URL, libpq its certificates from PGSSLROOTCERT, Flower its password from
FLOWER_BASIC_AUTH, whatever our own settings say; a shell, a host or a container platform may have set them for another
program. Every entry point removes them from its environment before a library reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

#: Variables of Celery, Flask, Flower, kombu and libpq.
IGNORED_PREFIXES = ("CELERY_", "FLASK_", "FLOWER_", "KOMBU_", "PG")
#: Those that Celery's command line reads under general names.
IGNORED_NAMES = frozenset({"APP", "BROKER_URL", "CONFIG_MODULE", "LOADER", "RESULT_BACKEND", "SKIP_CHECKS"})
#: A setting of docker-compose.yml and `make up`, and in the same sense one of Flower.
OWN_NAMES = frozenset({"FLOWER_PORT"})
#: gunicorn reads this one before any file of this project: gunicorn.conf.py makes it read its options again without it.
GUNICORN_ARGUMENTS = "GUNICORN_CMD_ARGS"
#: Other programs take a proxy or certificates from these; calls to HubSpot do not (shared/net/call_engine.py).
UNUSED_HTTP_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")


def remove_foreign_variables(environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """The names of those that were removed. The same variables are removed for libpq, which is written in C."""
    names = tuple(sorted(name for name in environ if is_foreign(name)))
    for name in names:
        del environ[name]
    return names


def is_foreign(name: str) -> bool:
    return name not in OWN_NAMES and (name in IGNORED_NAMES or name.startswith(IGNORED_PREFIXES))


def find_unused_proxies(environ: Mapping[str, str]) -> list[str]:
    """Variables that name a proxy, which calls to HubSpot do not use."""
    return [name for name in UNUSED_HTTP_NAMES if environ.get(name)]
