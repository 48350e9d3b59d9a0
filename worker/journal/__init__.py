"""HubSpot's journal of uninstalls: who reads it, and what follows. Begin at `reader`."""
