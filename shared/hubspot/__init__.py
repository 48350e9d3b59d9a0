"""The only code that knows HubSpot has a network address."""
