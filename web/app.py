"""The Flask application: its routes, the headers of every response, and a page for every error."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from types import ModuleType
from wsgiref.types import WSGIApplication

import structlog
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.middleware.proxy_fix import ProxyFix

from shared.text_format import make_printable
from web import error_pages, exception_summary
from web.admin import error_pages as admin_error_pages
from web.admin.routes import add_routes as add_admin_routes
from web.error_pages import AbortWithPage, is_admin_path, render_error_page
from web.monitoring.health import Readiness, healthz
from web.monitoring.metrics import Metrics
from web.oauth.code_exchange import CodeExchange
from web.oauth.connect_page import ConnectPage
from web.oauth.consent import Consent
from web.oauth.front_page import FrontPage
from web.oauth.handshake import Handshake
from web.oauth.install_status import InstallStatus
from web.oauth.links.reader import LinkReader
from web.oauth.marketplace.pages import Marketplace
from web.oauth.state import States
from web.security.basic_auth import METRICS, OPERATOR, BasicAuth
from web.security.cookies import Cookies
from web.security.host_header import hide_host_header
from web.security.rate_limits import HANDSHAKE_RATE, WRONG_PASSWORD_RATE, RateLimiter, limit_rate
from web.security.response_headers import security_headers
from web.server.path_prefix import serve_below
from web.services import Services

log = structlog.get_logger(__name__)

#: More than any form of these pages needs.
MAX_BODY_BYTES = 16 * 1024


def create_app(services: Services) -> Flask:
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.url_map.merge_slashes = False  # it would redirect to an absolute URL, built from the Host header
    app.jinja_env.filters["printable"] = make_printable
    cookies = Cookies(is_https=services.is_https, path_prefix=services.path_prefix)
    _add_handshake_routes(app, services, cookies)
    _add_operator_routes(app, services, cookies)

    wsgi_app: WSGIApplication = app.wsgi_app
    if services.trusted_proxies:
        # The client's address alone: no URL is built from what proxies or clients say about host, scheme or prefix.
        wsgi_app = ProxyFix(wsgi_app, x_for=services.trusted_proxies, x_proto=0, x_host=0)
    wsgi_app = serve_below(services.path_prefix, wsgi_app)
    app.wsgi_app = hide_host_header(wsgi_app)  # type: ignore[method-assign,assignment]  # Flask's own way

    headers = security_headers(services)

    @app.after_request
    def add_security_headers(response: Response) -> Response:
        frame_ancestors = g.get("frame_ancestors")
        response.headers.update(security_headers(services, frame_ancestors) if frame_ancestors else headers)
        return response

    app.before_request(_refuse_raw_bytes)
    app.register_error_handler(AbortWithPage, _show_error_page)
    app.register_error_handler(HTTPException, _show_http_error)
    app.register_error_handler(Exception, _show_internal_error)
    return app


def _add_handshake_routes(app: Flask, services: Services, cookies: Cookies) -> None:
    """All that a customer ever sees."""
    new_limiter = partial(RateLimiter, clock=services.monotonic_clock)
    front_page, status = FrontPage(services, cookies), InstallStatus(services, cookies)
    consent = Consent(services, cookies, States(services.secret_key))
    exchange, links = CodeExchange(services), LinkReader(services)
    handshake = Handshake(services, cookies, front_page=front_page, consent=consent, exchange=exchange, links=links)
    connect_page = ConnectPage(services, cookies, links, consent)
    marketplace = Marketplace(
        services, cookies, handshake=handshake, exchange=exchange, links=links, connect_page=connect_page
    )
    start = limit_rate(handshake.start, new_limiter("/install", HANDSHAKE_RATE))
    callback = limit_rate(marketplace.callback, new_limiter("/oauth/callback", HANDSHAKE_RATE))
    app.add_url_rule("/", "home", front_page.home)
    app.add_url_rule("/install", "start", start)
    # HUBSPOT_REDIRECT_URI may end with a slash: HubSpot compares every character with what is registered.
    app.add_url_rule("/oauth/callback", "callback", callback, strict_slashes=False)
    connect = limit_rate(connect_page.page, new_limiter("/connect", HANDSHAKE_RATE))
    app.add_url_rule("/connect/<link>", "connect", connect)
    marketplace_rate = new_limiter("/marketplace", HANDSHAKE_RATE)
    app.add_url_rule("/marketplace", "marketplace", limit_rate(marketplace.page, marketplace_rate))
    store = limit_rate(marketplace.store, marketplace_rate)
    app.add_url_rule("/marketplace", "marketplace_store", store, methods=["POST"])
    app.add_url_rule("/marketplace/<app_name>", "marketplace_of_app", limit_rate(marketplace.page, marketplace_rate))
    app.add_url_rule("/installs/<uuid:install_id>", "install_page", status.page)
    app.add_url_rule("/installs/<uuid:install_id>/status", "install_status", status.status)


def _add_operator_routes(app: Flask, services: Services, cookies: Cookies) -> None:
    """The operator's pages, and what monitoring reads."""
    wrong_passwords = RateLimiter("wrong passwords", WRONG_PASSWORD_RATE, services.monotonic_clock)
    operator = {OPERATOR: services.operator_password}
    operator_auth = BasicAuth(operator, wrong_passwords)
    metrics_auth = BasicAuth({METRICS: services.metrics_password, **operator}, wrong_passwords)
    metrics = Metrics(
        services.reports,
        services.refresh_stats,
        services.history,
        services.scope_reports,
        app_names=services.apps,
        sweep_seconds=services.sweep_seconds,
    )
    add_admin_routes(app, services, cookies, operator_auth.require)
    app.add_url_rule("/metrics", "metrics", metrics_auth.require(metrics.page))
    app.add_url_rule("/healthz", "healthz", healthz)
    app.add_url_rule("/readyz", "readyz", Readiness(services.readiness_checks, services.readiness_seconds).page)


def _refuse_raw_bytes() -> None:
    """Werkzeug decodes wrong percent escapes, but fails on bytes without an escape, which no browser sends."""
    try:
        request.query_string.decode()
    except UnicodeDecodeError:
        raise AbortWithPage(error_pages.MALFORMED_LINK) from None


def _show_error_page(error: AbortWithPage) -> Response:
    response = render_error_page(error.page)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(round(error.retry_after))
    if error.refresh_seconds is not None:  # without a URL: the page's own, which holds the code
        response.headers["Refresh"] = str(math.ceil(error.refresh_seconds))
    return response


def _show_http_error(error: HTTPException) -> Response:
    """Of 400 and above: Flask itself answers with the router's redirects."""
    texts = _error_texts()
    page = texts.NOT_FOUND if error.code == 404 else texts.BAD_REQUEST  # noqa: PLR2004
    response = render_error_page(replace(page, status=error.code))
    if allowed := getattr(error, "valid_methods", None):
        response.headers["Allow"] = ", ".join(allowed)
    return response


def _show_internal_error(error: Exception) -> Response:
    log.error("a request failed with an unexpected exception", **exception_summary.describe_exception(error))
    return render_error_page(_error_texts().INTERNAL_ERROR)


def _error_texts() -> ModuleType:
    return admin_error_pages if is_admin_path(request.path) else error_pages
