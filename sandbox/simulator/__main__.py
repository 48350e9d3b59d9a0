"""`python -m sandbox.simulator`: runs the simulated HubSpot until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandbox.simulator.behaviour import Behaviour, BehaviourSettings, InvalidBehaviour
from sandbox.simulator.server import SimulatorServer
from sandbox.simulator.simulation import Simulation
from shared.domain.identity import DEFAULT_APP
from shared.settings import Settings, SettingsError
from shared.settings.hubspot_app import HubSpotApp

_MANUAL = """\
The HubSpot app is read from HUBSPOT_CLIENT_ID, HUBSPOT_CLIENT_SECRET (several: a,b), HUBSPOT_REDIRECT_URI and
HUBSPOT_SCOPES, or the file that X_FILE names, and several apps from HUBSPOT_APPS_FILE; a secret on the command line
shows in `ps`. Without them a demo app is used, and any redirect URI and any scope is accepted. --unless-configured
exits at once with status 0 where HUBSPOT_APP_CONFIGURED is not empty."""


def main() -> int:
    options = _parse_options()
    environ = os.environ  # noqa: TID251 an entry point
    if options.unless_configured and environ.get("HUBSPOT_APP_CONFIGURED", "").strip():
        print("simulator: a HubSpot app is configured, so it is not needed", flush=True)
        return 0
    try:
        behaviour = _make_behaviour(options, environ)
        server = _make_server(options, behaviour)
    except (SettingsError, InvalidBehaviour, OSError, sqlite3.Error) as error:
        print(f"simulator: {_describe_error(error, options)}", file=sys.stderr)
        return 1
    _run(server)
    return 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.simulator",
        description="A HubSpot simulator.",
        epilog=_MANUAL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_parse_port, default=8090, help="8090; 0 chooses a free one")
    parser.add_argument("--state", type=Path, help="a file that keeps accounts and installs (default: memory)")
    parser.add_argument("--lifetime", type=float, default=120.0, help="life of access tokens in seconds (120)")
    parser.add_argument("--client-id", action="append", help="may be repeated")
    parser.add_argument("--client-secret", action="append", help="better in HUBSPOT_CLIENT_SECRET")
    parser.add_argument("--redirect-uri", action="append", help="may be repeated")
    parser.add_argument(
        "--unless-configured", action="store_true", help="exit at once where a HubSpot app is configured"
    )
    return parser.parse_args()


def _parse_port(text: str) -> int:
    if (number := int(text)) not in range(65_536):
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


def _make_behaviour(options: argparse.Namespace, environ: Mapping[str, str]) -> BehaviourSettings:
    """Options win over the environment. Raises SettingsError or InvalidBehaviour."""
    # 1. Of all apps: those of the options, else of the first app in the settings.
    apps = list(Settings.from_env(environ, needs=()).apps.values())
    first = apps[0] if apps else HubSpotApp(DEFAULT_APP)
    changes: dict[str, Any] = {
        **_describe_app(first),
        "client_ids": options.client_id or ([first.client_id] if first.client_id else []),
    }
    changes |= {"client_secrets": options.client_secret} if options.client_secret else {}
    changes |= {"redirect_uris": options.redirect_uri} if options.redirect_uri else {}
    common = BehaviourSettings(Behaviour())
    common.change({"lifetime": options.lifetime, **{name: value for name, value in changes.items() if value}})
    # 2. The further apps of HUBSPOT_APPS_FILE.
    return BehaviourSettings(common.common, {app.client_id: _describe_app(app) for app in apps[1:]})


def _describe_app(app: HubSpotApp) -> dict[str, Any]:
    return {
        "client_secrets": app.client_secrets,
        "redirect_uris": [app.redirect_uri] if app.redirect_uri else [],
        "required_scopes": app.scopes,
        "user_level": app.is_user_level,
    }


def _make_server(options: argparse.Namespace, behaviour: BehaviourSettings) -> SimulatorServer:
    """Raises OSError or sqlite3.Error."""
    if options.state:
        options.state.parent.mkdir(parents=True, exist_ok=True)
        options.state.touch(mode=0o600)
    state = Simulation(time.time, behaviour, str(options.state or ":memory:"))  # noqa: TID251 HubSpot's own clock
    return SimulatorServer(state, options.host, options.port)


def _describe_error(error: Exception, options: argparse.Namespace) -> str:
    if isinstance(error, sqlite3.Error):
        return f"{options.state} cannot be used ({error}): name another file, or remove this one"
    if isinstance(error, OSError):
        return f"cannot listen on {options.host}:{options.port} or write {options.state} ({error.strerror})"
    return str(error)


def _run(server: SimulatorServer) -> None:
    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # Otherwise looks for garbage, which a request with hundreds of tokens causes, visit the objects of all modules too.
    gc.freeze()
    print(f"simulator: listens at http://{server.server_address[0]!s}:{server.port}/", flush=True)
    server.serve_forever(poll_interval=0.5)
    server.server_close()
    server.state.close()
    print("simulator: stopped", flush=True)


if __name__ == "__main__":
    sys.exit(main())
