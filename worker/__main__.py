"""`python -m worker worker` and `… beat`: as `celery --quiet -A worker.app`, without a process to replace."""

from __future__ import annotations

import sys

import celery

from worker.celery_command import run_celery

if __name__ == "__main__":
    # Celery starts a worker again, after SIGHUP, by the path in the first argument.
    sys.argv[:1] = [f"{celery.__path__[0]}/__main__.py", "--quiet", "-A", "worker.app"]
    run_celery()
