"""gunicorn's defaults for `gunicorn web.wsgi:app`, read from the folder it starts in; the command line wins."""

import os
from contextlib import suppress
from typing import Any

from shared.db.core.errors import StoreUnavailable
from shared.startup_checks import check_database
from web.server import slow_client_worker
from web.server.startup import exit_on_configuration_error, load_settings

# Threads wait for HubSpot without holding up the others; 8 slow exchanges still leave the health checks answering.
worker_class = "gthread"
threads = 8
# The request's path, never its query: that of the callback holds the code and the state.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'
logger_class = "web.server.access_log.AccessLogger"
# No header of a request counts for more than any other: gunicorn would let whoever comes from this machine set
# SCRIPT_NAME. Whom we believe about the client's address is said by TRUSTED_PROXIES (docs/settings.md).
forwarded_allow_ips = ""
forwarder_headers = ""
# It would open a socket in the home folder, which a read-only container does not have.
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Look in the master, before it forks: two workers that refuse at once leave a traceback of gunicorn's own."""
    with exit_on_configuration_error(), suppress(StoreUnavailable):  # each worker waits for PostgreSQL and logs it
        check_database(load_settings(os.environ))  # noqa: TID251  an entry point
    on_reload(server)


def on_reload(server: Any) -> None:
    """Here and not as `worker_class`: our manuals' command lines name gthread, and the command line wins."""
    server.worker_class = slow_client_worker.stands_in_for(server.worker_class, tls=server.cfg.is_ssl)
