"""Everything that changes a connection."""
