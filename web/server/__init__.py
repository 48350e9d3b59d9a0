"""How web runs under gunicorn: the worker class, lanes of threads, the access log, time limits."""
