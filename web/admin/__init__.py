"""The operator's pages: how all is doing, every connection, and what can be done about it."""
