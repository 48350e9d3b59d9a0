"""One run of `tokenkeeper up`, once its settings are known: servers, migrations, processes, until they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.banner import format_banner
from sandbox.embedded import EmbeddedError
from sandbox.readiness import make_http_check, make_sweep_check, wait_for
from sandbox.run_config import Ports, RunConfig, load_secrets, make_run_config
from sandbox.servers import Servers, run_servers
from sandbox.shell_env import write_psql_script, write_shell_settings
from sandbox.supervision import run_processes
from shared.db.schema.migrate import migrate
from shared.settings import Settings

CHILD_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    # Celery warns in nine lines; on a newcomer's machine root may be the only account.
    "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
}


def run_until_stopped(
    state: Path, given: Mapping[str, str], dotenv: Mapping[str, str], ports: Ports, say: Callable[[str], None]
) -> None:
    """`given`: the settings of the environment and of .env.

    Raises EmbeddedError, ProcessEnded, SettingsError, SchemaError, StoreUnavailable.
    """
    # 1. Start the servers, migrate.
    secrets = load_secrets(state / "secrets", given)
    with run_servers(state, given, say, is_simulated=ports.simulator is not None) as servers:
        config = make_run_config(given, ports, secrets, servers.urls)
        environment = {**given, **config.settings, **CHILD_ENVIRONMENT}
        migrate(Settings.from_env(environment).database_url)
        # 2. Write files for another terminal.
        write_shell_settings(state / "env", {name: environment.get(name, "") for name in {*dotenv, *config.settings}})
        if servers.postgres:
            write_psql_script(state / "psql", servers.postgres, servers.database)
        # 3. Run the processes until they are stopped.
        _run_processes(config, servers, environment, state, say)


def _run_processes(
    config: RunConfig, servers: Servers, environment: Mapping[str, str], state: Path, say: Callable[[str], None]
) -> None:
    """Says when everything works. Raises EmbeddedError where an embedded server ends by itself."""
    settings, ports = Settings.from_env(environment), config.ports
    checks = {
        "web": make_http_check(f"http://127.0.0.1:{ports.web}/readyz"),
        "flower": make_http_check(f"http://127.0.0.1:{ports.flower}/healthcheck"),
        "the first sweep of beat and worker": make_sweep_check(settings.database_url),
    }
    if config.is_simulated:
        checks["simulator"] = make_http_check(f"http://127.0.0.1:{ports.simulator}/_sim/health")
    ended_servers: list[str] = []

    def announce() -> None:
        wait_for(checks, say)
        psql = f"{state.name}/psql" if servers.postgres else ""
        password, addresses = settings.operator_password, servers.addresses()
        print(format_banner(config, password, addresses, psql=psql, env=f"{state.name}/env"), flush=True)

    def stop_when_a_server_ends() -> None:
        ended_servers.append(servers.wait_until_one_ends())
        os.kill(os.getpid(), signal.SIGTERM)  # honcho handles it

    run_processes(config, state, environment, (announce, stop_when_a_server_ends))
    if ended_servers:
        name = ended_servers[0]
        log_folder = servers.by_name()[name].folder
        raise EmbeddedError(f"{name} ended by itself, so all were stopped: its log is in {log_folder}")
