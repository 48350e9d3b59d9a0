"""How web runs under gunicorn: startup, the worker class, the access log, time limits."""
