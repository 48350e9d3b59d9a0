"""Serves the site below a path, whether the proxy in front passes that path on or removes it."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


def serve_below(path_prefix: str, wsgi_app: WSGIApplication) -> WSGIApplication:
    """`path_prefix` begins with a slash and ends with none; "" for a site of its own. Every link begins with it."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == path_prefix or path.startswith(f"{path_prefix}/"):
            path = path.removeprefix(path_prefix)
        # For an empty path Flask would redirect to an absolute URL, built from the Host header.
        return wsgi_app({**environ, "SCRIPT_NAME": path_prefix, "PATH_INFO": path or "/"}, start_response)

    return call
