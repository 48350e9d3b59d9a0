"""Celery worker and beat: refreshes tokens, stores installs, finishes disconnects, delivers alerts."""
