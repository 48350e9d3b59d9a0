"""The security headers that every response of web carries."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from web.services import Services

NO_PAGE = "'none'"


def security_headers(services: Services, frame_ancestors: Sequence[str] = ()) -> dict[str, str]:
    """`frame_ancestors` are the origins whose pages may show the response in a frame; none of them: no page."""
    form_targets = (*services.origins, _consent_hosts(services.hubspot_app_url), *frame_ancestors)
    policy = (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        f"form-action 'self' {' '.join(form_targets)}",
        "base-uri 'none'",
        f"frame-ancestors {' '.join(frame_ancestors) or NO_PAGE}",
    )
    headers = {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    if not frame_ancestors:  # the header cannot name an origin
        headers["X-Frame-Options"] = "DENY"
    if services.is_https:  # over http, browsers ignore these and print a warning
        headers["Strict-Transport-Security"] = "max-age=31536000"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return headers


def _consent_hosts(app_url: str) -> str:
    """Chromium checks form-action against every redirect, and HubSpot redirects to the host of the account's region."""
    parts = urlsplit(app_url)
    hosts = f"{parts.scheme}://{parts.netloc}"
    if (parts.hostname or "").endswith(".hubspot.com"):
        hosts += " https://*.hubspot.com"
    return hosts
