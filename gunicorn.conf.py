"""gunicorn's defaults for `gunicorn web.wsgi:app`, read from the folder it starts in; the command line wins."""

import gc
import os
from typing import Any

from shared import lean_imports as _before_all_others  # noqa: F401
from shared.db.core.errors import SchemaError
from shared.foreign_environment import GUNICORN_ARGUMENTS, remove_foreign_variables
from shared.settings import SettingsError
from web.loaded_application import LoadedApplication, log_failed_reload
from web.server import slow_client_worker
from web.server.stop_signals import block_stop_signals, unblock_stop_signals
from web.startup import exit_on_configuration_error

# gunicorn would take these two from PORT and WEB_CONCURRENCY.
bind = "127.0.0.1:8000"
workers = 1
# Threads for pages that wait for no other server; what waits has threads of its own (web/server/lanes.py).
worker_class = "gthread"
threads = 8
# Seconds, more than balancers keep an idle connection (AWS 60, Traefik 90, Azure 240, Google 600): they must close it,
# or now and then a request meets a connection that has just been closed.
keepalive = 620
# What browsers send: cookies of neighbouring sites, of 4 KB each, and a callback's URL with code and state.
limit_request_field_size = slow_client_worker.MAX_HEADER_BYTES
limit_request_line = 8190
# The request's path, never its query: the callback's holds the code and the state.
access_log_format = '%(h)s "%(m)s %(U)s %(H)s" %(s)s %(b)s %(M)sms'
logger_class = "web.server.access_log.AccessLogger"
# Trust no header of a request: by default any client on this machine may set SCRIPT_NAME. Which proxies are trusted for
# the client's address is TRUSTED_PROXIES (docs/settings.md).
forwarded_allow_ips = ""
forwarder_headers = ""
# Its socket would be in the home folder, which a read-only container does not have.
control_socket_disable = True

#: As in `gunicorn web.wsgi:app`.
OUR_APPLICATION = "web.wsgi:app"


def on_starting(server: Any) -> None:
    """Loads the application before the fork: its processes share the memory, and a refusal is one line."""
    ignored = remove_foreign_variables(os.environ)  # noqa: TID251  an entry point
    if os.environ.pop(GUNICORN_ARGUMENTS, ""):  # noqa: TID251
        ignored = (*ignored, GUNICORN_ARGUMENTS)
        server.app.reload()  # reads the options again, as after SIGHUP
        server.setup(server.app)
    with exit_on_configuration_error():
        _load(server, ignored)


def on_reload(server: Any) -> None:
    """After SIGHUP: new workers with the settings of now, or with those of before where these are wrong."""
    gc.unfreeze()  # the application of before can be freed
    try:
        _load(server)
    except (SettingsError, SchemaError) as error:
        log_failed_reload(error)


def _load(server: Any, ignored: tuple[str, ...] = ()) -> None:
    # Set here and not as `worker_class`: the command lines in the manuals say gthread, and the command line wins.
    server.worker_class = slow_client_worker.choose_worker_class(server.worker_class, tls=server.cfg.is_ssl)
    loaded = LoadedApplication.load(os.environ, ignored)  # noqa: TID251
    loaded.run_once()
    if server.app.app_uri == OUR_APPLICATION:  # another one may wrap ours, and imports web.wsgi
        server.app.callable, server.app.loaded = loaded.app, loaded


def pre_fork(server: Any, worker: Any) -> None:  # noqa: ARG001
    """Garbage collection writes to each object that it visits: without freeze() the forks would share no memory."""
    gc.collect()
    gc.freeze()


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn looks at the number of parameters
    block_stop_signals(server.SIG_QUEUE)


def post_worker_init(worker: Any) -> None:
    """Called after gunicorn has set the worker's handlers."""
    if worker.app.app_uri == OUR_APPLICATION:
        worker.app.loaded.begin_process(os.environ)  # noqa: TID251
    unblock_stop_signals()
