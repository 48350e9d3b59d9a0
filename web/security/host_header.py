"""Hides the Host header from Flask and Werkzeug: no URL is built from it, so a forged one does no harm."""

from __future__ import annotations

from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Request

#: The key of the WSGI environment that holds the header as the client sent it.
_ORIGINAL_HOST = "tokenkeeper.original_host"


def hide_host_header(wsgi_app: WSGIApplication) -> WSGIApplication:
    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        # A copy: gunicorn writes its access log from the dictionary that it passed in.
        hosts = {_ORIGINAL_HOST: environ.get("HTTP_HOST", ""), "HTTP_HOST": "localhost"}
        return wsgi_app({**environ, **hosts}, start_response)

    return call


def original_host(request: Request) -> str:
    """The host and port of the URL that the browser asked for, or whatever else the client or a proxy sent."""
    return str(request.environ.get(_ORIGINAL_HOST, ""))
