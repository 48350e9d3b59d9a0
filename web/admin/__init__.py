"""The operator's pages: the overview, every connection, and the actions on them. Begin at `routes`."""
