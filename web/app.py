"""The Flask application: routes, the headers of every answer, and a person's page for everything that goes wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from types import ModuleType
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from web import exception_summary, problems
from web.admin import problems as operator_problems
from web.admin.routes import add_routes
from web.error_pages import is_admin_path, render_problem
from web.monitoring.health import healthz, readyz
from web.monitoring.metrics import Metrics
from web.oauth.handshake import ORIGINAL_HOST, Handshake
from web.oauth.install_status import InstallStatus
from web.problems import AbortWithPage
from web.security.basic_auth import BasicAuth
from web.security.cookies import Cookies
from web.security.rate_limits import HANDSHAKES, WRONG_PASSWORDS, Addresses, RateLimiter, rate_limited
from web.services import Services

log = structlog.get_logger(__name__)

#: Bytes. No form of ours comes near.
LARGEST_BODY = 16 * 1024


def create_app(services: Services) -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.url_map.merge_slashes = False  # the router would redirect, to a host that we are not called by
    _add_routes(app, services)
    headers = _headers(services)

    app.wsgi_app = _hostless(app.wsgi_app)  # type: ignore[method-assign,assignment]  # Flask's own way
    app.before_request(_refuse_raw_bytes)

    @app.after_request
    def _protect(response: Response) -> Response:
        response.headers.update(headers)
        return response

    app.register_error_handler(AbortWithPage, _stopped)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _bug)
    return app


def _add_routes(app: Flask, services: Services) -> None:
    cookies = Cookies(services.https)
    handshake, waiting = Handshake(services, cookies), InstallStatus(services, cookies)
    app.add_url_rule("/", "home", handshake.home)
    addresses, buckets = Addresses(services.trusted_proxies), partial(RateLimiter, clock=services.ticks)
    app.add_url_rule("/install", "start", rate_limited(handshake.start, buckets("/install", HANDSHAKES), addresses))
    callback = rate_limited(handshake.callback, buckets("/oauth/callback", HANDSHAKES), addresses)
    app.add_url_rule("/oauth/callback", "callback", callback)
    app.add_url_rule("/installs/<uuid:install_id>", "install_page", waiting.page)
    app.add_url_rule("/installs/<uuid:install_id>/status", "install_status", waiting.status)
    guarded = BasicAuth(services.operator_password, buckets("wrong passwords", WRONG_PASSWORDS), addresses).guarded
    add_routes(app, services, cookies, guarded)
    app.add_url_rule("/metrics", "metrics", guarded(Metrics(services.reports, services.refresh_stats).page))
    app.add_url_rule("/healthz", "healthz", healthz)
    app.add_url_rule("/readyz", "readyz", lambda: readyz(services.checks))


def _headers(services: Services) -> dict[str, str]:
    headers = {
        "Content-Security-Policy": "; ".join(
            (
                "default-src 'none'",
                "style-src 'self'",
                "script-src 'self'",
                "img-src 'self'",
                "connect-src 'self'",
                f"form-action 'self' {services.origin} {_consent_hosts(services.hubspot_app_url)}",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            )
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    if services.https:  # over http, browsers ignore these and complain
        headers["Strict-Transport-Security"] = "max-age=31536000"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return headers


def _consent_hosts(app_url: str) -> str:
    """Chromium holds form-action against every redirect, and HubSpot sends people on to their region's host."""
    parts = urlsplit(app_url)
    hosts = f"{parts.scheme}://{parts.netloc}"
    if (parts.hostname or "").endswith(".hubspot.com"):
        hosts += " https://*.hubspot.com"
    return hosts


def _hostless(wsgi_app: WSGIApplication) -> WSGIApplication:
    """No URL of ours is built from what a client calls us, so nothing it may call us can do harm."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        called = {ORIGINAL_HOST: environ.get("HTTP_HOST", ""), "HTTP_HOST": "localhost"}
        return wsgi_app({**environ, **called}, start_response)

    return call


def _refuse_raw_bytes() -> None:
    """Werkzeug reads badly encoded percent signs, but stumbles over what no browser leaves unencoded."""
    try:
        request.query_string.decode()
    except UnicodeDecodeError:
        raise AbortWithPage(problems.MALFORMED) from None


def _stopped(stopped: AbortWithPage) -> Response:
    response = render_problem(stopped.problem)
    if stopped.retry_after is not None:
        response.headers["Retry-After"] = str(round(stopped.retry_after))
    return response


def _http_error(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:  # noqa: PLR2004  a redirect of the router
        return Response(status=error.code, headers=error.get_headers())
    known = _problems().NOT_FOUND if error.code == 404 else _problems().BAD_REQUEST  # noqa: PLR2004
    response = render_problem(replace(known, status=error.code))
    if allowed := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(allowed)
    return response


def _bug(error: Exception) -> Response:
    log.error("a request stumbled over a bug of ours", **exception_summary.describe_exception(error))
    return render_problem(_problems().BUG)


def _problems() -> ModuleType:
    return operator_problems if is_admin_path(request.path) else problems
