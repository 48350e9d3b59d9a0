"""Reverse proxies in front of web, configured as docs/proxies.md says; each serves web below PREFIX."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.child_processes import ChildProcess
from sandbox.ports import find_free_port
from tests.support.environment import inherited_environment
from tests.support.product import url_responds

PREFIX = "/apps/hubspot"

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream web {{ server {web}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location {prefix}/ {{
      proxy_pass http://web/;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend clients
  bind 127.0.0.1:{port}
  option forwardfor
  default_backend web
backend web
  server web {web}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  handle_path {prefix}/* {{
    reverse_proxy {web}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    name: str
    configuration: str
    arguments: Callable[[Path], Sequence[str]]  #: for the file of the configuration

    @property
    def binary(self) -> str | None:
        """Debian installs some into /usr/sbin, which is not on every PATH."""
        return shutil.which(self.name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")

    @contextmanager
    def run(self, folder: Path, web_url: str) -> Iterator[str]:
        """The URL below which the proxy serves web."""
        assert self.binary
        port = find_free_port()
        file = folder / "configuration"
        web = urlsplit(web_url).netloc
        file.write_text(
            self.configuration.format(folder=folder, port=port, web=web, prefix=PREFIX).lstrip(), encoding="ascii"
        )
        environment = inherited_environment() | {"HOME": str(folder)}
        url = f"http://127.0.0.1:{port}{PREFIX}"
        argv = [self.binary, *self.arguments(file)]
        process = ChildProcess(self.name, argv, environment, folder / "log", cwd=folder, url=url)
        try:
            process.wait_until(url_responds("/healthz"))
            yield url
        finally:
            process.stop()


PROXIES = (
    Proxy("nginx", NGINX, lambda file: ["-e", "stderr", "-c", str(file)]),
    Proxy("haproxy", HAPROXY, lambda file: ["-db", "-f", str(file)]),
    Proxy("caddy", CADDY, lambda file: ["run", "--adapter", "caddyfile", "--config", str(file)]),
)
