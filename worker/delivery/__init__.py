"""Alerts and events are posted from here, signed."""
