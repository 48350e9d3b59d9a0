"""The security headers that every response of web carries."""

from __future__ import annotations

from urllib.parse import urlsplit

from web.services import Services


def security_headers(services: Services) -> dict[str, str]:
    policy = (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        f"form-action 'self' {' '.join(services.origins)} {_consent_hosts(services.hubspot_app_url)}",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    headers = {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
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
