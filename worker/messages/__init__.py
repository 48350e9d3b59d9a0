"""Messages from the broker: validated before Celery sees them, and received again after each of its failures."""
