"""gunicorn's defaults for `gunicorn web.wsgi:app`, read from the folder it starts in; the command line wins."""

import os
from contextlib import suppress

from shared.db.errors import StoreUnavailable
from shared.preflight import check_database
from web.start import refusing, settings

# Threads wait for HubSpot without holding up the others; 8 slow exchanges still leave the health checks answering.
worker_class = "gthread"
threads = 8
# The request's path, never its query: that of the callback holds the code and the state.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'
# It would open a socket in the home folder, which a read-only container does not have.
control_socket_disable = True


def on_starting(_server: object) -> None:
    """Look in the master, before it forks: two workers that refuse at once leave a traceback of gunicorn's own."""
    with refusing(), suppress(StoreUnavailable):  # each worker waits for PostgreSQL by itself, and says so
        check_database(settings(os.environ))  # noqa: TID251  an entry point
