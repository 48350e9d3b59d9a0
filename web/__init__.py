"""The web process: the handshake with HubSpot, the operator's pages, health checks and metrics.

- `oauth/`: the handshake, from the Connect button to the page that says that the account is connected.
- `admin/`: the operator's pages, behind a password.
- `security/`: password, CSRF tokens, cookies, rate limits, headers.
- `monitoring/`: /healthz, /readyz and /metrics.
- `server/`: how the process runs under gunicorn.

`wsgi.py` is the entry point; `loaded_application.py` and `startup.py` make what it serves. `app.py` has the routes,
`services.py` what they use, `error_pages.py` every error page.
"""
